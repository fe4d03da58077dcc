// SPDX-License-Identifier: MIT
//! TLS towards a broker.

use std::path::PathBuf;

use crate::config::{params::Params, reference::tls, secret::Secret};

/// How the broker's certificate is checked, and which one we show.
///
/// The files are read when a connection is made, so a renewed certificate needs no reload.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TlsConfig {
    /// Certificates that we trust, as PEM; `None`: those of the operating system.
    pub ca_file: Option<PathBuf>,
    /// Lists of revoked certificates, as PEM; `None`: none is looked up. Only the broker's own certificate is, in the
    /// list of the authority that signed it, which must be there.
    pub crl_file: Option<PathBuf>,
    /// Our certificate chain and its key, as PEM.
    pub client: Option<ClientCertificate>,
    /// Name that the broker's certificate must carry; `None`: the host that we connect to.
    /// Always `None` for Kafka, which names its brokers itself.
    pub server_name: Option<String>,
    /// Whether the broker's certificate is checked at all.
    pub verify: bool,
}

/// A certificate with its key: one is of no use without the other.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ClientCertificate {
    /// Certificate chain as PEM, ours first.
    pub cert_file: PathBuf,
    /// Private key as PEM.
    pub key_file: PathBuf,
    /// What the key is encrypted with.
    pub key_password: Option<Secret>,
}

impl Default for TlsConfig {
    /// What holds where nothing is said: the broker's certificate is checked.
    fn default() -> Self {
        Self { ca_file: None, crl_file: None, client: None, server_name: None, verify: true }
    }
}

impl TlsConfig {
    /// Reads what AMQP and Kafka share. `without` says why there is no TLS, if there is none.
    pub(super) fn read(params: &mut Params<'_>, without: Option<&str>) -> Self {
        let ca_file = params.read(&tls::CA_FILE);
        let crl_file = params.read(&tls::CRL_FILE);
        let verify = params.read(&tls::VERIFY);
        if let Some(why) = without {
            let given = [
                (ca_file.is_some(), tls::CA_FILE.name),
                (crl_file.is_some(), tls::CRL_FILE.name),
                (params.is_given(&tls::CERT_FILE), tls::CERT_FILE.name),
                (params.is_given(&tls::KEY_FILE), tls::KEY_FILE.name),
                (params.is_given(&tls::KEY_PASSWORD), tls::KEY_PASSWORD.name),
                (!verify, tls::VERIFY.name),
            ];
            for (_, name) in given.into_iter().filter(|(given, _)| *given) {
                params.clash_named(name, format!("has no effect without TLS: {why}"));
            }
        }
        if ca_file.is_some() && !verify {
            let message = "has no effect while tls-verify is false: leave one of them out";
            params.clash(&[&tls::CA_FILE, &tls::VERIFY], message);
        }
        if crl_file.is_some() && !verify {
            let message = "has no effect while tls-verify is false: leave one of them out";
            params.clash(&[&tls::CRL_FILE, &tls::VERIFY], message);
        }
        let client = ClientCertificate::read(params);
        Self { ca_file, crl_file, client, server_name: None, verify }
    }
}

impl ClientCertificate {
    fn read(params: &mut Params<'_>) -> Option<Self> {
        let cert_file = params.read(&tls::CERT_FILE);
        let key_file = params.read(&tls::KEY_FILE);
        let key_password = params.read(&tls::KEY_PASSWORD);
        if key_password.is_some() && key_file.is_none() {
            let message = "is given without tls-key-file, whose password it is";
            params.clash(&[&tls::KEY_PASSWORD, &tls::KEY_FILE], message);
        }
        match (cert_file, key_file) {
            (Some(cert_file), Some(key_file)) => Some(Self { cert_file, key_file, key_password }),
            (Some(_), None) => {
                let message = "is given without tls-key-file: neither works alone";
                params.clash(&[&tls::CERT_FILE, &tls::KEY_FILE], message);
                None
            }
            (None, Some(_)) => {
                let message = "is given without tls-cert-file: neither works alone";
                params.clash(&[&tls::KEY_FILE, &tls::CERT_FILE], message);
                None
            }
            (None, None) => None,
        }
    }
}
