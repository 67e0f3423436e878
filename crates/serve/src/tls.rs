//! TLS: a certificate and its key, which can be read anew while the server runs.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use thiserror::Error;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, ServerConfig};

/// Why there is no TLS.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file cannot be read, or is no PEM.
    #[error("cannot read {path}: it must be a PEM file, with lines such as `-----BEGIN CERTIFICATE-----`")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: pem::Error,
    },
    /// A file without certificates.
    #[error("{0} holds no certificate; --tls-cert takes the server's, then those that signed it")]
    NoCertificate(PathBuf),
    /// A file without a key.
    #[error(
        "{0} holds no private key; --tls-key takes the one that belongs to the certificate, without a password"
    )]
    NoKey(PathBuf),
    /// Two files that do not belong together, or that cannot be used.
    #[error("the certificate {cert} and the key {key} cannot be used together")]
    Unfit {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's.
        key: PathBuf,
        /// Why.
        source: rustls::Error,
    },
}

/// What proves to clients who the server is. Version 1.2 and 1.3, as `rustls` chooses; clients prove nothing.
#[derive(Debug)]
pub struct Tls {
    cert: PathBuf,
    key: PathBuf,
    config: RwLock<Arc<ServerConfig>>,
}

impl Tls {
    /// Reads the files.
    pub fn open(cert: &Path, key: &Path) -> Result<Tls, TlsError> {
        let config = RwLock::new(read(cert, key)?);
        Ok(Tls { cert: cert.to_owned(), key: key.to_owned(), config })
    }

    /// Reads the files again, for connections that come from now on; if they are wrong, the old ones stay.
    pub fn reload(&self) -> Result<(), TlsError> {
        let config = read(&self.cert, &self.key)?;
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(())
    }

    /// What greets a connection.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        self.config.read().unwrap_or_else(PoisonError::into_inner).clone().into()
    }
}

fn read(cert: &Path, key: &Path) -> Result<Arc<ServerConfig>, TlsError> {
    let unreadable = |path: &Path, source| TlsError::Read { path: path.to_owned(), source };
    let chain = CertificateDer::pem_file_iter(cert).and_then(Iterator::collect);
    let chain: Vec<_> = chain.map_err(|error| unreadable(cert, error))?;
    if chain.is_empty() {
        return Err(TlsError::NoCertificate(cert.to_owned()));
    }
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| match error {
        pem::Error::NoItemsFound => TlsError::NoKey(key.to_owned()),
        error => unreadable(key, error),
    })?;
    let unfit = |source| TlsError::Unfit { cert: cert.to_owned(), key: key.to_owned(), source };
    let versions = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = versions.with_safe_default_protocol_versions().map_err(unfit)?;
    let mut config = builder.with_no_client_auth().with_single_cert(chain, secret).map_err(unfit)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn made() -> (String, String) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    #[test]
    fn files_that_are_wrong_are_told_of() {
        let folder = tempfile::tempdir().unwrap();
        let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
        let says = || Tls::open(&cert, &key).unwrap_err().to_string();
        assert!(says().contains("cert.pem"), "{}", says());
        fs::write(&cert, "nothing").unwrap();
        assert!(says().contains("holds no certificate"), "{}", says());
        let ((own, own_key), (_, other_key)) = (made(), made());
        fs::write(&cert, &own).unwrap();
        assert!(says().contains("key.pem"), "{}", says());
        fs::write(&key, &own).unwrap(); // the certificate twice
        assert!(says().contains("holds no private key"), "{}", says());
        fs::write(&key, other_key).unwrap();
        assert!(says().contains("cannot be used together"), "{}", says());
        fs::write(&key, own_key).unwrap();
        let tls = Tls::open(&cert, &key).unwrap();
        // A wrong file leaves what there was.
        let before = Arc::as_ptr(&tls.config.read().unwrap());
        fs::write(&cert, "").unwrap();
        assert!(tls.reload().is_err());
        assert_eq!(before, Arc::as_ptr(&tls.config.read().unwrap()));
        let (new, new_key) = made();
        fs::write(&cert, new).unwrap();
        fs::write(&key, new_key).unwrap();
        tls.reload().unwrap();
        assert_ne!(before, Arc::as_ptr(&tls.config.read().unwrap()));
    }
}
