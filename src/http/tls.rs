//! TLS of the HTTP edge: the worker's certificate, and client certificates where some are asked for.
//!
//! OpenSSL, which librdkafka brings anyway, with Mozilla's intermediate settings (TLS 1.2 and 1.3). A client certificate is
//! asked for and not required: probes of `/livez` have none, and a client that shows none is a caller without credentials
//! ([`super::access`]). The files are read again when they change, since certificates live for weeks.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use openssl::pkey::PKey;
use openssl::ssl::{AlpnError, Ssl, SslAcceptor, SslMethod, SslVerifyMode, select_next_proto};
use openssl::stack::Stack;
use openssl::x509::store::X509StoreBuilder;
use openssl::x509::{GeneralNameRef, X509, X509Ref};
use tokio::net::TcpStream;
use tokio_openssl::SslStream;

use super::connections::MOST_NAMES;
use crate::bounded_read;
use crate::log_events;

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(10);

/// Bytes of one file, at most.
const MOST_BYTES: u64 = 1 << 20;

/// Where the certificates lie, as PEM.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// The worker's certificate, then those between it and the authority.
    pub certificate: PathBuf,
    /// Its private key, without a password.
    pub key: PathBuf,
    /// Authorities whose client certificates count.
    pub client_authorities: Option<PathBuf>,
}

/// Why there is no TLS with these files.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{0}: {1}")]
    Unreadable(PathBuf, std::io::Error),
    /// A file holds something else.
    #[error("{0}: {1}")]
    Content(PathBuf, String),
    /// OpenSSL refuses.
    #[error("OpenSSL: {0}")]
    OpenSsl(#[from] openssl::error::ErrorStack),
}

/// Takes connections over into TLS.
pub struct Tls {
    files: TlsFiles,
    acceptor: RwLock<SslAcceptor>,
    /// What was tried last.
    seen: Mutex<Contents>,
}

impl Tls {
    /// Reads the files.
    pub fn load(files: TlsFiles) -> Result<Tls, TlsError> {
        let contents = Contents::read(&files)?;
        let acceptor = RwLock::new(contents.acceptor(&files)?);
        Ok(Tls { files, acceptor, seen: Mutex::new(contents) })
    }

    /// The connection over TLS, and the names in the client's certificate, if it showed one.
    pub(super) async fn accept(&self, stream: TcpStream) -> Result<(SslStream<TcpStream>, Arc<[String]>), String> {
        let ssl = {
            let acceptor = self.acceptor.read().unwrap_or_else(|poisoned| poisoned.into_inner());
            Ssl::new(acceptor.context()).map_err(|error| error.to_string())?
        };
        let mut stream = SslStream::new(ssl, stream).map_err(|error| error.to_string())?;
        std::pin::Pin::new(&mut stream).accept().await.map_err(|error| error.to_string())?;
        let names = stream.ssl().peer_certificate().map(|certificate| names(&certificate)).unwrap_or_default();
        Ok((stream, names.into()))
    }

    /// Uses files that changed, until the process ends. What cannot be used is told, and what was there stays.
    pub async fn follow(self: Arc<Tls>) {
        loop {
            tokio::time::sleep(LOOK).await;
            let tls = self.clone();
            // Reading files waits for disks.
            let _ = tokio::task::spawn_blocking(move || tls.look()).await;
        }
    }

    fn look(&self) {
        // One that is away for a moment is being replaced.
        let Ok(contents) = Contents::read(&self.files) else { return };
        let mut seen = self.seen.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if contents == *seen {
            return;
        }
        match contents.acceptor(&self.files) {
            Ok(acceptor) => {
                *self.acceptor.write().unwrap_or_else(|poisoned| poisoned.into_inner()) = acceptor;
                log_events::http::TlsReloaded { file: &self.files.certificate.display() }.log();
            }
            Err(error) => log_events::http::TlsNotReloaded { error: &error }.log(),
        }
        *seen = contents;
    }
}

/// The bytes of the files.
#[derive(PartialEq)]
struct Contents {
    certificate: Vec<u8>,
    key: Vec<u8>,
    client_authorities: Option<Vec<u8>>,
}

impl Contents {
    fn read(files: &TlsFiles) -> Result<Contents, TlsError> {
        Ok(Contents {
            certificate: read(&files.certificate)?,
            key: read(&files.key)?,
            client_authorities: files.client_authorities.as_deref().map(read).transpose()?,
        })
    }

    fn acceptor(&self, files: &TlsFiles) -> Result<SslAcceptor, TlsError> {
        let mut builder = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server())?;
        let mut chain = certificates(&files.certificate, &self.certificate)?.into_iter();
        if let Some(own) = chain.next() {
            builder.set_certificate(&own)?;
        }
        for further in chain {
            builder.add_extra_chain_cert(further)?;
        }
        let content = |error: openssl::error::ErrorStack| TlsError::Content(files.key.clone(), error.to_string());
        // A key with a password would ask for it at the terminal.
        let key = PKey::private_key_from_pem_callback(&self.key, |_| Ok(0)).map_err(content)?;
        builder.set_private_key(&key).and_then(|()| builder.check_private_key()).map_err(|_| {
            let certificate = files.certificate.display();
            TlsError::Content(files.key.clone(), format!("this is not the key of the certificate in {certificate}"))
        })?;
        builder
            .set_alpn_select_callback(|_, offered| select_next_proto(b"\x08http/1.1", offered).ok_or(AlpnError::NOACK));
        if let (Some(path), Some(pem)) = (&files.client_authorities, &self.client_authorities) {
            let (mut store, mut listed) = (X509StoreBuilder::new()?, Stack::new()?);
            for authority in certificates(path, pem)? {
                listed.push(authority.subject_name().to_owned()?)?;
                store.add_cert(authority)?;
            }
            builder.set_verify_cert_store(store.build())?;
            builder.set_client_ca_list(listed);
            builder.set_verify(SslVerifyMode::PEER);
            // Sessions that are taken up again keep what was verified; OpenSSL wants to know for whom.
            builder.set_session_id_context(b"fraud-scorer")?;
        }
        Ok(builder.build())
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let bytes = std::fs::File::open(path).and_then(|file| bounded_read::read(file, MOST_BYTES));
    bytes.map_err(|error| TlsError::Unreadable(path.to_owned(), error))
}

/// At least one.
fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<X509>, TlsError> {
    match X509::stack_from_pem(pem) {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(TlsError::Content(path.to_owned(), "it holds no certificate in PEM".into())),
        Err(error) => Err(TlsError::Content(path.to_owned(), error.to_string())),
    }
}

/// What a certificate calls its holder: common name, then the alternative names for DNS, URI and e-mail.
fn names(certificate: &X509Ref) -> Vec<String> {
    let subject = certificate.subject_name();
    let common =
        subject.entries_by_nid(openssl::nid::Nid::COMMONNAME).filter_map(|entry| entry.data().to_string().ok());
    let mut names: Vec<String> = common.collect();
    if let Some(alternatives) = certificate.subject_alt_names() {
        let text =
            |name: &GeneralNameRef| name.dnsname().or_else(|| name.uri()).or_else(|| name.email()).map(str::to_owned);
        names.extend(alternatives.iter().filter_map(text));
    }
    names.truncate(MOST_NAMES);
    names
}
