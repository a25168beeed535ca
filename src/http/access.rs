//! Who may do what: the one table of roles, and the file that says who has which. Pure.
//!
//! ```text
//!  request ─► credentials (bearer token, Basic password, client certificate) ─► Principal ─► right of the path? ─► handler
//! ```
//!
//! A token is compared by its digest, so where two begin to differ shows nowhere. Browsers cannot be told to send a bearer
//! token, so a token is also taken as the password of HTTP Basic (RFC 7617), with any user name.

use std::sync::Arc;

use axum::http::{HeaderMap, header};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use super::connections::Peer;
use crate::audit::Actor;
use crate::digest::sha256;

/// Characters that a token has at least: what can be guessed is no secret.
pub const SHORTEST_TOKEN: usize = 16;

/// Bytes of the file of `--access`, at most.
pub const MOST_FILE_BYTES: u64 = 1 << 20;

/// Something that a path asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// To see metrics, the model and the console, without any transaction.
    Look,
    /// To have transactions scored.
    Score,
    /// To see suspicious verdicts, with their ids and features.
    Review,
    /// To change the model that serves.
    Operate,
}

/// What a principal is to the worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Sees how the worker does: Prometheus, a screen on the wall.
    Viewer,
    /// A program that asks for scores.
    Scorer,
    /// Sees suspicious verdicts too.
    Analyst,
    /// Runs the worker: exchanges models, sees no transaction.
    Operator,
    /// May do everything.
    Admin,
}

/// Every role with its name and its rights.
const ROLES: [(Role, &str, &[Right]); 5] = [
    (Role::Viewer, "viewer", &[Right::Look]),
    (Role::Scorer, "scorer", &[Right::Score]),
    (Role::Analyst, "analyst", &[Right::Look, Right::Score, Right::Review]),
    (Role::Operator, "operator", &[Right::Look, Right::Operate]),
    (Role::Admin, "admin", &[Right::Look, Right::Score, Right::Review, Right::Operate]),
];

/// What a caller without credentials may where no file of `--access` says otherwise and the address is the host's own or
/// was opened on purpose: all that changes nothing.
const ANONYMOUS: &[Right] = &[Right::Look, Right::Score, Right::Review];

impl Role {
    fn entry(self) -> &'static (Role, &'static str, &'static [Right]) {
        // The table has every role, in the order of the enum.
        &ROLES[self as usize]
    }

    /// Its name in the file of `--access`.
    pub fn name(self) -> &'static str {
        self.entry().1
    }

    /// Whether the role has the right.
    pub fn may(self, right: Right) -> bool {
        self.entry().2.contains(&right)
    }
}

/// The names of the roles that have `right`, as a sentence has them.
pub fn roles_with(right: Right) -> String {
    let names: Vec<&str> = ROLES.iter().filter(|(role, ..)| role.may(right)).map(|(_, name, _)| *name).collect();
    match names[..] {
        [ref others @ .., last] if !others.is_empty() => format!("{} or {last}", others.join(", ")),
        _ => names.concat(),
    }
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// Its role, and its name in the file; `None`: without credentials.
    known: Option<(Role, Arc<str>)>,
    rights: &'static [Right],
}

impl Principal {
    /// Whether it has the right.
    pub fn may(&self, right: Right) -> bool {
        self.rights.contains(&right)
    }

    /// Who it is for the audit.
    pub fn actor(&self, peer: &Peer) -> Actor {
        let address = peer.address.ip();
        match &self.known {
            Some((role, name)) => Actor::new(role.name(), format_args!("{name} at {address}")),
            None => Actor::unknown(address),
        }
    }

    fn of(entry: &Entry) -> Principal {
        Principal { known: Some((entry.role, entry.name.clone())), rights: entry.role.entry().2 }
    }
}

/// A line of the file.
struct Entry {
    role: Role,
    name: Arc<str>,
    /// SHA-256 of the token; `None`: a client certificate with this name.
    token: Option<String>,
}

/// Who has which role.
#[derive(Default)]
pub struct Access {
    entries: Vec<Entry>,
    /// Whether a caller without credentials may what changes nothing.
    is_open: bool,
}

/// Why the file of `--access` cannot be used. Never repeats what stands in it beyond names of roles.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum AccessError {
    /// Not `ROLE NAME [TOKEN]`.
    #[error("line {0}: expected ROLE NAME TOKEN, or ROLE NAME for a client certificate with that name")]
    Form(usize),
    /// An unknown role.
    #[error("line {0}: no such role; there are viewer, scorer, analyst, operator and admin")]
    Role(usize),
    /// Too short a token.
    #[error("line {0}: a token has at least {SHORTEST_TOKEN} characters (openssl rand -hex 32 makes one)")]
    Token(usize),
    /// The same token, or the same certificate, twice: it would be unclear who asks.
    #[error("line {0}: its token, or its certificate's name, stands in an earlier line")]
    Twice(usize),
    /// No line names a caller.
    #[error("it names no caller: every path but those of health would be closed to all")]
    Empty,
}

/// Why a request goes no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// Credentials that no line names, or none where the path asks for some.
    Unknown,
    /// Known, but not with this right.
    Forbidden,
    /// No role has it in this worker: there are no tokens.
    Off,
}

impl Access {
    /// No file: a caller without credentials may what changes nothing where `is_open`, else nothing.
    pub fn without_file(is_open: bool) -> Access {
        Access { entries: Vec::new(), is_open }
    }

    /// Reads the file of `--access`: a line each, `ROLE NAME TOKEN`, or `ROLE NAME` for a caller with a client certificate
    /// of that name; `#` begins a comment. From then on a caller without credentials may nothing.
    pub fn read(text: &str) -> Result<Access, AccessError> {
        let mut access = Access::default();
        for (index, line) in text.lines().enumerate() {
            let (number, line) = (index + 1, line.split('#').next().unwrap_or_default());
            let words: Vec<&str> = line.split_whitespace().collect();
            let (role, name, token) = match words[..] {
                [] => continue,
                [role, name] => (role, name, None),
                [role, name, token] => (role, name, Some(token)),
                _ => return Err(AccessError::Form(number)),
            };
            let role = ROLES.iter().find(|(_, known, _)| *known == role).ok_or(AccessError::Role(number))?.0;
            if token.is_some_and(|token| token.len() < SHORTEST_TOKEN) {
                return Err(AccessError::Token(number));
            }
            let token = token.map(|token| sha256(token.as_bytes()));
            let is_same = |entry: &Entry| entry.token == token && (token.is_some() || &*entry.name == name);
            if access.entries.iter().any(is_same) {
                return Err(AccessError::Twice(number));
            }
            access.entries.push(Entry { role, name: name.into(), token });
        }
        if access.entries.is_empty() { Err(AccessError::Empty) } else { Ok(access) }
    }

    /// Also lets in callers that know this token, as `admin`.
    pub fn with_admin(mut self, token: &str) -> Access {
        self.entries.push(Entry { role: Role::Admin, name: "admin".into(), token: Some(sha256(token.as_bytes())) });
        self
    }

    /// Whether some line asks for a client certificate.
    pub fn wants_certificates(&self) -> bool {
        self.entries.iter().any(|entry| entry.token.is_none())
    }

    /// Who sends these headers over a connection whose client certificate, verified, has these names.
    pub fn principal(&self, headers: &HeaderMap, certificate: &[String]) -> Result<Principal, Denied> {
        if let Some(credentials) = headers.get(header::AUTHORIZATION) {
            let known = token(credentials.as_bytes()).map(|token| sha256(&token));
            let entry = self.entries.iter().find(|entry| entry.token.is_some() && entry.token == known);
            return entry.map(Principal::of).ok_or(Denied::Unknown);
        }
        let named = |entry: &&Entry| entry.token.is_none() && certificate.iter().any(|name| **name == *entry.name);
        if let Some(entry) = self.entries.iter().find(named) {
            return Ok(Principal::of(entry));
        }
        let rights = if self.is_open { ANONYMOUS } else { &[] };
        Ok(Principal { known: None, rights })
    }

    /// Whether `principal` may use a path that asks for `right`.
    pub fn allows(&self, principal: &Principal, right: Right) -> Result<(), Denied> {
        match principal.known {
            _ if principal.may(right) => Ok(()),
            Some(_) => Err(Denied::Forbidden),
            None if self.entries.is_empty() => Err(Denied::Off),
            None => Err(Denied::Unknown),
        }
    }
}

/// The token in the value of `Authorization`.
fn token(credentials: &[u8]) -> Option<Vec<u8>> {
    let (scheme, value) = credentials.split_at(credentials.iter().position(|byte| *byte == b' ')?);
    let value = value.trim_ascii();
    if scheme.eq_ignore_ascii_case(b"bearer") {
        return Some(value.to_owned());
    }
    if scheme.eq_ignore_ascii_case(b"basic") {
        let pair = BASE64_STANDARD.decode(value).ok()?;
        let colon = pair.iter().position(|byte| *byte == b':')?;
        return Some(pair[colon + 1..].to_owned());
    }
    None
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const FILE: &str = "# who asks\nviewer prometheus 0123456789abcdef-v\nscorer  checkout.example # by certificate\n\n\
                        analyst ana 0123456789abcdef-a\noperator olga 0123456789abcdef-o\nadmin root 0123456789abcdef-r\n";

    fn headers(authorization: &str) -> HeaderMap {
        if authorization.is_empty() {
            return HeaderMap::new();
        }
        [(header::AUTHORIZATION, authorization.parse().unwrap())].into_iter().collect()
    }

    fn asked(access: &Access, authorization: &str, certificate: Option<&str>, right: Right) -> Result<(), Denied> {
        let names: Vec<String> = certificate.iter().map(|name| (*name).to_owned()).collect();
        access.allows(&access.principal(&headers(authorization), &names)?, right)
    }

    #[test]
    fn the_table_has_every_role_in_its_place() {
        for (index, (role, name, _)) in ROLES.iter().enumerate() {
            assert_eq!((*role as usize, role.name()), (index, *name));
        }
        assert_eq!(roles_with(Right::Operate), "operator or admin");
        assert_eq!(roles_with(Right::Look), "viewer, analyst, operator or admin");
    }

    #[test]
    fn every_role_has_its_rights_and_no_others() {
        let access = Access::read(FILE).unwrap();
        let of = |who: &str| {
            let (authorization, certificate) = match who {
                "checkout.example" => (String::new(), Some(who)),
                who => (format!("Bearer 0123456789abcdef-{who}"), None),
            };
            [Right::Look, Right::Score, Right::Review, Right::Operate]
                .map(|right| asked(&access, &authorization, certificate, right).is_ok())
        };
        assert_eq!(of("v"), [true, false, false, false]);
        assert_eq!(of("checkout.example"), [false, true, false, false]);
        assert_eq!(of("a"), [true, true, true, false]);
        assert_eq!(of("o"), [true, false, false, true]);
        assert_eq!(of("r"), [true, true, true, true]);
    }

    #[test]
    fn a_token_is_a_bearers_or_a_password_and_whatever_else_is_unknown() {
        let access = Access::read(FILE).unwrap();
        let basic = |pair: &str| format!("Basic {}", BASE64_STANDARD.encode(pair));
        for known in ["bearer 0123456789abcdef-o", "Bearer  0123456789abcdef-o ", &basic("anyone:0123456789abcdef-o")] {
            assert_eq!(asked(&access, known, None, Right::Operate), Ok(()), "{known}");
        }
        for unknown in [
            "Bearer 0123456789abcdef-O",
            "Bearer 0123456789abcdef-",
            "Bearer",
            "Bearer ",
            "Digest 0123456789abcdef-o",
            "Basic 0123456789abcdef-o",
            &basic("0123456789abcdef-o"),
            // A name without a token is a certificate's, whatever stands in the headers.
            "Bearer checkout.example",
            &basic("checkout.example:"),
        ] {
            assert_eq!(
                asked(&access, unknown, Some("checkout.example"), Right::Look),
                Err(Denied::Unknown),
                "{unknown}"
            );
        }
        assert_eq!(asked(&access, "Bearer 0123456789abcdef-v", None, Right::Operate), Err(Denied::Forbidden));
        assert_eq!(asked(&access, "", None, Right::Look), Err(Denied::Unknown));
        assert_eq!(asked(&access, "", Some("elsewhere.example"), Right::Score), Err(Denied::Unknown));
    }

    #[test]
    fn without_a_file_an_open_address_lets_anyone_look_and_score_and_change_nothing() {
        let open = Access::without_file(true);
        for right in [Right::Look, Right::Score, Right::Review] {
            assert_eq!(asked(&open, "", None, right), Ok(()));
        }
        assert_eq!(asked(&open, "", None, Right::Operate), Err(Denied::Off));
        assert_eq!(asked(&open, "Bearer ", None, Right::Look), Err(Denied::Unknown));
        let open = open.with_admin("0123456789abcdef");
        assert_eq!(asked(&open, "", None, Right::Look), Ok(()));
        assert_eq!(asked(&open, "", None, Right::Operate), Err(Denied::Unknown));
        assert_eq!(asked(&open, "Bearer 0123456789abcdef", None, Right::Operate), Ok(()));
        assert_eq!(asked(&Access::without_file(false), "", None, Right::Look), Err(Denied::Off));
    }

    #[test]
    fn a_file_that_says_nothing_clear_is_refused_without_being_repeated() {
        for (text, error) in [
            ("viewer", AccessError::Form(1)),
            ("viewer a 0123456789abcdef b", AccessError::Form(1)),
            ("\nking a 0123456789abcdef", AccessError::Role(2)),
            ("viewer a secret", AccessError::Token(1)),
            ("viewer a 0123456789abcdef\nadmin b 0123456789abcdef", AccessError::Twice(2)),
            ("viewer a\nadmin a", AccessError::Twice(2)),
            ("# nothing\n", AccessError::Empty),
        ] {
            let refused = Access::read(text).err().unwrap();
            assert_eq!(refused, error);
            assert!(!refused.to_string().contains("secret") && !refused.to_string().contains("abcdef"));
        }
    }
}
