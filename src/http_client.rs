//! The one way the worker makes an HTTP client of its own: to MLflow, and to a collector of spans.
//!
//! No client follows redirects, which could carry a token to another host.

use reqwest::{Client, ClientBuilder, Url};

/// A client builder with what all clients share; `certificates` are PEM text of further authorities to trust.
///
/// # Errors
/// What is wrong with the certificates; the caller knows which setting named them.
pub fn builder(certificates: Option<&[u8]>) -> Result<ClientBuilder, String> {
    let builder = Client::builder()
        .user_agent(concat!("fraud-scorer/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none());
    match certificates {
        Some(pem) => trust(builder, pem),
        None => Ok(builder),
    }
}

#[cfg(feature = "tls")]
fn trust(mut builder: ClientBuilder, pem: &[u8]) -> Result<ClientBuilder, String> {
    for certificate in reqwest::Certificate::from_pem_bundle(pem).map_err(|error| error.to_string())? {
        builder = builder.add_root_certificate(certificate);
    }
    Ok(builder)
}

#[cfg(not(feature = "tls"))]
fn trust(_: ClientBuilder, _: &[u8]) -> Result<ClientBuilder, String> {
    Err(WITHOUT_TLS.to_owned())
}

/// What a build without TLS says where some is asked for.
#[cfg(not(feature = "tls"))]
pub const WITHOUT_TLS: &str = "this build has no TLS (cargo feature `tls`): `make build` makes the whole one";

/// Whether what is sent to `url` can be read on its way: it is not encrypted, and leaves this machine.
pub fn is_in_the_clear(url: &Url) -> bool {
    url.scheme() == "http" && !url.host_str().is_some_and(is_loopback)
}

/// Whether a host's name or address, in brackets or not, is this machine's own.
pub fn is_loopback(host: &str) -> bool {
    fraud_settings::is_loopback(host.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(host))
}

/// Parses the address of an HTTP service. `None` where it is none.
///
/// # Errors
/// It is one that this build cannot reach.
pub fn address(text: &str) -> Result<Option<Url>, String> {
    let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    #[cfg(not(feature = "tls"))]
    if url.as_ref().is_some_and(|url| url.scheme() == "https") {
        return Err(WITHOUT_TLS.to_owned());
    }
    Ok(url)
}
