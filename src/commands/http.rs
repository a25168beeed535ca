//! Flags of the HTTP edge, and the [`Door`] they make: where it listens, how, and whose requests are answered.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, anyhow};
use tokio::runtime::Runtime;

use super::Failure;
use crate::audit::Audit;
use crate::bounded_read::read_text;
use crate::http::access::{Access, MOST_FILE_BYTES, SHORTEST_TOKEN};
use crate::http::guard::{Guard, Hosts};
use crate::http::{Door, Transport, listen};
use crate::log_events;

/// How the edge is reached, and by whom.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct HttpArguments {
    /// Address of the HTTP edge; port 0 takes a free one. Beyond loopback it takes --tls-cert and --access, or --http-open
    /// [default: 127.0.0.1, at 9464 (run) or 9465 (archive), a free port if taken]
    #[arg(long, value_name = "ADDR:PORT")]
    pub http: Option<SocketAddr>,

    /// Be reached beyond loopback in the clear, and without --access by anyone: for networks where that is right
    #[arg(long)]
    pub http_open: bool,

    /// File that says who may ask: a line each, ROLE NAME TOKEN (roles: viewer, scorer, analyst, operator, admin); ROLE
    /// NAME for a client certificate with that name. Without it anyone who reaches the address may look and score, and
    /// who knows FRAUD_SCORER_ADMIN_TOKEN may do everything
    #[arg(long, value_name = "FILE")]
    pub access: Option<PathBuf>,

    /// Host names by which the edge may be asked, besides the machine's own; beyond loopback: by any, unless some are given
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub allowed_hosts: Vec<String>,

    /// Certificate of the HTTP edge (PEM, its chain behind it); read again when it changes
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,

    /// Private key of that certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,

    /// Authorities whose client certificates count (PEM); --access gives their names roles
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_client_ca: Option<PathBuf>,
}

impl HttpArguments {
    /// Opens the door, at `default` where no address was asked for; denied tries are told to `audit`.
    pub fn open(&self, default: SocketAddr, audit: &Audit, runtime: &Runtime) -> Result<Door, Failure> {
        let address = self.http.unwrap_or(default);
        let (access, transport) = (self.access(address)?, self.transport()?);
        let listener = runtime
            .block_on(listen(self.http, default))
            .with_context(|| format!("cannot listen on {address}"))
            .map_err(Failure::configuration)?;
        log_events::lifecycle::HttpListens { address: listener.local_addr()? }.log();
        let hosts = Hosts { is_loopback: address.ip().is_loopback(), allowed: self.allowed_hosts.clone() };
        Ok(Door { listener, transport, guard: Arc::new(Guard { hosts, access, audit: audit.clone() }) })
    }

    fn access(&self, address: SocketAddr) -> Result<Access, Failure> {
        let (is_far, is_encrypted) = (!address.ip().is_loopback(), self.tls_cert.is_some());
        if is_far && !self.http_open && !(is_encrypted && self.access.is_some()) {
            let message = format!(
                "--http {address} can be reached from other machines: give --tls-cert, --tls-key and --access, or say by \
                 --http-open that the network keeps strangers out (or that a proxy with TLS stands before it)"
            );
            return Err(Failure::configuration(anyhow!(message)));
        }
        let token = admin_token().map_err(Failure::configuration)?;
        let access = match &self.access {
            Some(path) => read(path).with_context(|| format!("--access {}", path.display())),
            None => Ok(Access::without_file(!is_far || self.http_open)),
        };
        let access = access.map_err(Failure::configuration)?;
        let has_names = access.wants_certificates();
        if has_names != self.tls_client_ca.is_some() {
            let message = if has_names {
                "--access names client certificates (lines without a token): give --tls-client-ca, whose certificates count"
            } else {
                "--tls-client-ca without a name in --access: a line ROLE NAME there gives a client certificate its role"
            };
            return Err(Failure::configuration(anyhow!(message)));
        }
        Ok(match token {
            Some(token) => access.with_admin(&token),
            None => access,
        })
    }

    #[cfg(feature = "tls")]
    fn transport(&self) -> Result<Transport, Failure> {
        use crate::http::tls::{Tls, TlsFiles};
        let (Some(certificate), Some(key)) = (&self.tls_cert, &self.tls_key) else { return Ok(Transport::Plain) };
        let client_authorities = self.tls_client_ca.clone();
        let files = TlsFiles { certificate: certificate.clone(), key: key.clone(), client_authorities };
        let tls = Tls::load(files).context("TLS of the HTTP edge").map_err(Failure::configuration)?;
        Ok(Transport::Tls(Arc::new(tls)))
    }

    #[cfg(not(feature = "tls"))]
    fn transport(&self) -> Result<Transport, Failure> {
        match self.tls_cert {
            None => Ok(Transport::Plain),
            Some(_) => Err(Failure::configuration(anyhow!("--tls-cert: {}", crate::http_client::WITHOUT_TLS))),
        }
    }
}

fn read(path: &Path) -> anyhow::Result<Access> {
    Ok(Access::read(&read_text(std::fs::File::open(path)?, MOST_FILE_BYTES)?)?)
}

/// The token of FRAUD_SCORER_ADMIN_TOKEN, if there is one. Never a flag: command lines can be read by others.
fn admin_token() -> anyhow::Result<Option<String>> {
    let token = std::env::var("FRAUD_SCORER_ADMIN_TOKEN").unwrap_or_default();
    if !token.is_empty() && token.len() < SHORTEST_TOKEN {
        anyhow::bail!("FRAUD_SCORER_ADMIN_TOKEN: a token has at least {SHORTEST_TOKEN} characters");
    }
    Ok(Some(token).filter(|token| !token.is_empty()))
}
