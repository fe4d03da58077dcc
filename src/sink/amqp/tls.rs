// SPDX-License-Identifier: MIT
//! TLS towards the broker, by the system's OpenSSL, which FreeSWITCH has mapped already.
//!
//! The files are read for each connection, so a renewed certificate needs no reload.

use std::fs::File;
use std::io::Read;
use std::net::TcpStream;
use std::path::Path;

use openssl::asn1::Asn1Time;
use openssl::error::ErrorStack;
use openssl::pkey::{PKey, Private};
use openssl::ssl::{
    ErrorCode, Ssl, SslConnector, SslConnectorBuilder, SslFiletype, SslMethod, SslStream,
    SslVerifyMode, SslVersion,
};
use openssl::x509::store::{X509Lookup, X509StoreBuilder};
use openssl::x509::verify::X509VerifyFlags;
use openssl::x509::{X509, X509VerifyResult};

use crate::config::tls::{ClientCertificate, TlsConfig};
use crate::sink::revocation;

/// No chain or key is larger; a path to something else should not fill the memory.
const FILE_MAX: u64 = 1 << 20;

/// A TLS connection that has not shaken hands yet.
///
/// # Errors
///
/// In words: a file is missing, empty, does not fit, or has expired.
pub(super) fn prepare(
    config: &TlsConfig,
    host: &str,
    tcp: TcpStream,
) -> Result<SslStream<TcpStream>, String> {
    let mut builder = SslConnector::builder(SslMethod::tls_client()).map_err(|e| internal(&e))?;
    builder.set_min_proto_version(Some(SslVersion::TLS1_2)).map_err(|e| internal(&e))?;
    if let Some(path) = &config.ca_file {
        trust(&mut builder, path)?;
    }
    if let Some(path) = &config.crl_file {
        look_up(&mut builder, path)?;
    }
    if let Some(client) = &config.client {
        present(&mut builder, client)?;
    }
    if !config.verify {
        builder.set_verify(SslVerifyMode::NONE);
    }
    let name = config.server_name.as_deref().unwrap_or(host);
    let mut configuration = builder.build().configure().map_err(|e| internal(&e))?;
    configuration.set_verify_hostname(config.verify);
    let ssl: Ssl = configuration
        .into_ssl(name)
        .map_err(|_| format!("{name:?} is no name that a certificate can carry"))?;
    SslStream::new(ssl, tcp).map_err(|e| internal(&e))
}

/// Trusts the certificates in this file and no others.
fn trust(builder: &mut SslConnectorBuilder, path: &Path) -> Result<(), String> {
    let mut store = X509StoreBuilder::new().map_err(|e| internal(&e))?;
    for certificate in certificates("tls-ca-file", path)? {
        store.add_cert(certificate).map_err(|e| internal(&e))?;
    }
    builder.set_cert_store(store.build());
    Ok(())
}

/// Has the broker's certificate looked up in the lists of this file. Only its own, as librdkafka does: lists of those above it
/// need not be there, and the one of who signed it must be.
fn look_up(builder: &mut SslConnectorBuilder, path: &Path) -> Result<(), String> {
    revocation::check(path)?;
    let store = builder.cert_store_mut();
    store.set_flags(X509VerifyFlags::CRL_CHECK).map_err(|e| internal(&e))?;
    let lookup = store.add_lookup(X509Lookup::file()).map_err(|e| internal(&e))?;
    // It wants a path that is text and has no NUL: a configuration is text, and the check has opened it.
    lookup.load_crl_file(path, SslFiletype::PEM).map(|_| ()).map_err(|error| {
        format!("tls-crl-file {} cannot be used: {}", path.display(), reasons(&error))
    })
}

/// Shows this certificate to a broker that asks for one.
fn present(builder: &mut SslConnectorBuilder, client: &ClientCertificate) -> Result<(), String> {
    let path = client.cert_file.display();
    let mut chain = certificates("tls-cert-file", &client.cert_file)?.into_iter();
    let Some(own) = chain.next() else {
        return Err(no_certificate("tls-cert-file", &client.cert_file));
    };
    let now = Asn1Time::days_from_now(0).map_err(|e| internal(&e))?;
    if own.not_after() < now {
        return Err(format!("tls-cert-file {path} expired on {}: renew it", own.not_after()));
    }
    if own.not_before() > now {
        return Err(format!("tls-cert-file {path} is valid from {} on, not yet", own.not_before()));
    }
    let key = private_key(client)?;
    builder.set_certificate(&own).map_err(|e| internal(&e))?;
    for certificate in chain {
        builder.add_extra_chain_cert(certificate).map_err(|e| internal(&e))?;
    }
    let fits = builder.set_private_key(&key).and_then(|()| builder.check_private_key());
    fits.map_err(|_| {
        format!(
            "tls-key-file {} does not belong to the certificate in {path}",
            client.key_file.display()
        )
    })
}

fn private_key(client: &ClientCertificate) -> Result<PKey<Private>, String> {
    let path = client.key_file.display();
    let password = client.key_password.as_ref().map(|secret| {
        secret.resolve().map_err(|error| format!("password of tls-key-file {path}: {error}"))
    });
    let password = password.transpose()?;
    let mut pem = read("tls-key-file", &client.key_file)?;
    let mut asked = false;
    // Without a callback of ours OpenSSL would ask for the password on the terminal.
    let key = PKey::private_key_from_pem_callback(&pem, |buffer| {
        asked = true;
        let password = password.as_deref().map(str::as_bytes).unwrap_or_default();
        match buffer.get_mut(..password.len()) {
            Some(field) => field.copy_from_slice(password),
            None => return Ok(0),
        }
        Ok(password.len())
    });
    pem.fill(0);
    key.map_err(|_| match (asked, &password) {
        (false, _) => format!("tls-key-file {path} holds no private key as PEM"),
        (true, None) => format!("tls-key-file {path} is encrypted: set tls-key-password"),
        (true, Some(_)) => format!("tls-key-password does not open tls-key-file {path}"),
    })
}

fn certificates(parameter: &str, path: &Path) -> Result<Vec<X509>, String> {
    let found = X509::stack_from_pem(&read(parameter, path)?).unwrap_or_default();
    if found.is_empty() { Err(no_certificate(parameter, path)) } else { Ok(found) }
}

fn no_certificate(parameter: &str, path: &Path) -> String {
    format!("{parameter} {} holds no certificate as PEM", path.display())
}

fn read(parameter: &str, path: &Path) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(FILE_MAX).read_to_end(&mut bytes))
        .map(|_| bytes)
        .map_err(|error| format!("{parameter} {} cannot be read: {error}", path.display()))
}

fn internal(error: &ErrorStack) -> String {
    format!("OpenSSL: {}", reasons(error))
}

/// OpenSSL's own words, without its addresses in the source.
fn reasons(stack: &ErrorStack) -> String {
    let reasons: Vec<&str> =
        stack.errors().iter().filter_map(openssl::error::Error::reason).collect();
    if reasons.is_empty() { "no reason given".to_owned() } else { reasons.join(", ") }
}

/// Why shaking hands failed, and what to do.
///
/// # Errors
///
/// Gives the error back when it is the network's rather than TLS's.
pub(super) fn why(
    ssl: &SslStream<TcpStream>,
    host: &str,
    config: &TlsConfig,
    error: openssl::ssl::Error,
) -> Result<String, std::io::Error> {
    let name = config.server_name.as_deref().unwrap_or(host);
    let verdict = ssl.ssl().verify_result();
    if verdict != X509VerifyResult::OK && config.verify {
        // Numbers of x509_vfy.h.
        let what = match verdict.as_raw() {
            10 => "the broker's certificate has expired: renew it".to_owned(),
            9 => "the broker's certificate is not valid yet: compare the clocks".to_owned(),
            62 | 64 => format!(
                "the broker's certificate does not carry the name {name:?}: connect by a name that \
                 it carries, or set tls-server-name"
            ),
            18..=21 => {
                "the broker's certificate comes from no authority that is trusted here: set \
                        tls-ca-file"
                    .to_owned()
            }
            code => about_list(code, config.crl_file.as_deref())
                .unwrap_or_else(|| "the broker's certificate is not accepted".to_owned()),
        };
        return Ok(format!("{what} ({})", verdict.error_string()));
    }
    match error.ssl_error().map(reasons) {
        Some(words)
            if words.contains("wrong version number") || words.contains("packet length") =>
        {
            Ok("it does not answer with TLS: use amqp:// or the broker's TLS port (5671)"
                .to_owned())
        }
        Some(words) => Ok(refusal(&words)),
        None if error.code() == ErrorCode::ZERO_RETURN => {
            Ok("it ended TLS while shaking hands".to_owned())
        }
        None => Err(error.into_io_error().unwrap_or_else(|_| {
            std::io::Error::new(
                std::io::ErrorKind::UnexpectedEof,
                "it closed the connection while shaking hands for TLS",
            )
        })),
    }
}

/// What a verdict means that comes of lists of revoked certificates.
fn about_list(code: i32, file: Option<&Path>) -> Option<String> {
    let file = file?.display();
    // Numbers of x509_vfy.h.
    Some(match code {
        23 => format!(
            "the broker's certificate is revoked by tls-crl-file {file}: give the broker a new one"
        ),
        3 => format!(
            "tls-crl-file {file} holds no list of the authority that signed the broker's \
             certificate: add it"
        ),
        12 => format!(
            "tls-crl-file {file} holds an expired list of the authority that signed the broker's \
             certificate: put the newest one there"
        ),
        11 => format!(
            "tls-crl-file {file} holds a list that is not valid yet, of the authority that signed the \
             broker's certificate: compare the clocks"
        ),
        8 => format!(
            "tls-crl-file {file} holds a list in the name of the authority that signed the broker's \
             certificate, but not signed by it: put its own there"
        ),
        _ => return None,
    })
}

/// What TLS says when it breaks off.
pub(super) fn broken(error: &openssl::ssl::Error) -> String {
    error.ssl_error().map_or_else(|| "TLS failed".to_owned(), |stack| refusal(&reasons(stack)))
}

fn refusal(words: &str) -> String {
    if words.contains("alert") {
        format!("it breaks off TLS: {words}; it may ask for a client certificate that it trusts")
    } else {
        format!("TLS failed: {words}")
    }
}
