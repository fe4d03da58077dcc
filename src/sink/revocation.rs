// SPDX-License-Identifier: MIT
//! The file with lists of revoked certificates (`tls-crl-file`), before OpenSSL reads it.
//!
//! OpenSSL holds the broker's certificate against it, for Kafka inside of librdkafka. That tells nothing of why it refuses
//! one, and would trust a certificate that lies in the file: so what can be seen in the file alone is found here, for both.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use memchr::memmem;
use openssl::asn1::Asn1Time;
use openssl::x509::X509Crl;

/// Some 400000 certificates: the authority of a broker has revoked fewer.
const FILE_MAX: u64 = 16 << 20;
/// How each thing in a file of PEM begins, and how a list goes on.
const BEGIN: &[u8] = b"-----BEGIN ";
const LIST: &[u8] = b"-----BEGIN X509 CRL-----";

/// Looks whether a broker could be accepted by this file at all.
///
/// # Errors
///
/// In one line: it cannot be read, holds no list or something else, or all that it holds is over.
pub(super) fn check(path: &Path) -> Result<(), String> {
    let about = |what: String| format!("tls-crl-file {} {what}", path.display());
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(FILE_MAX + 1).read_to_end(&mut bytes))
        .map_err(|error| about(format!("cannot be read: {error}")))?;
    judge(&bytes).map_err(about)
}

fn judge(bytes: &[u8]) -> Result<(), String> {
    if u64::try_from(bytes.len()).is_ok_and(|length| length > FILE_MAX) {
        let most = FILE_MAX >> 20;
        return Err(format!("is larger than {most} MiB: leave in it what is about the brokers"));
    }
    let lists = lists(bytes)?;
    let now = Asn1Time::days_from_now(0).map_err(|error| format!("OpenSSL: {error}"))?;
    // A list without an end is in force for ever, and one of several may be: which of them counts, the certificate says.
    let ends: Option<Vec<_>> = lists.iter().map(|list| list.next_update()).collect();
    let latest = ends.and_then(|ends| {
        ends.into_iter().reduce(|latest, end| if latest < end { end } else { latest })
    });
    match latest {
        Some(latest) if latest < now => {
            Err(format!("expired on {latest}: put the authority's newest list there"))
        }
        _ => Ok(()),
    }
}

fn lists(bytes: &[u8]) -> Result<Vec<X509Crl>, String> {
    let mut lists = Vec::new();
    for start in memmem::find_iter(bytes, BEGIN) {
        let rest = bytes.get(start..).unwrap_or_default();
        if !rest.starts_with(LIST) {
            return Err(
                "holds more than lists of revoked certificates: take out what else is there, \
                        such as certificates"
                    .to_owned(),
            );
        }
        lists.push(X509Crl::from_pem(rest).map_err(|_| {
            "holds a list of revoked certificates that is damaged: fetch it again".to_owned()
        })?);
    }
    if lists.is_empty() {
        return Err("holds no list of revoked certificates (CRL) as PEM: one that is DER can be \
                    converted by openssl crl -inform DER"
            .to_owned());
    }
    Ok(lists)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Until 2001-02-01.
    const OLD: &str = "-----BEGIN X509 CRL-----
MIGPMDgwCgYIKoZIzj0EAwIwDDEKMAgGA1UEAwwBYRcNMDEwMTAxMDAwMDAwWhcN
MDEwMjAxMDAwMDAwWjAKBggqhkjOPQQDAgNHADBEAiBfCfa9ku6/GtfKZaTeiqg2
uSG7IkKlA225WVhDM1MBwAIgGjWpxipSzIrLmkhudI/25qjKAKtQFgRD3sRnhoTA
5Ds=
-----END X509 CRL-----
";
    /// Until 2002-02-01.
    const LESS_OLD: &str = "-----BEGIN X509 CRL-----
MIGRMDgwCgYIKoZIzj0EAwIwDDEKMAgGA1UEAwwBYRcNMDIwMTAxMDAwMDAwWhcN
MDIwMjAxMDAwMDAwWjAKBggqhkjOPQQDAgNJADBGAiEAm9cUZV7AIZriwqTiwfb7
u0+bBJikjMMKs//apdyFdd0CIQDOtDXegXDL57rHuPsaP+tMq7no1lfDJ5kQnkno
rNGimQ==
-----END X509 CRL-----
";
    /// Until the year 9999.
    const IN_FORCE: &str = "-----BEGIN X509 CRL-----
MIGRMDowCgYIKoZIzj0EAwIwDDEKMAgGA1UEAwwBYRcNMDEwMTAxMDAwMDAwWhgP
OTk5OTEyMzEyMzU5NTlaMAoGCCqGSM49BAMCA0cAMEQCIFEu9FJIUwm8Xc4Geg7X
CUFtCjo/c8LQiLIIDv0xfkUUAiB7To6q8L2Py5eawusqDEhBh/2U3YbGjoXKT7Mv
b4m23w==
-----END X509 CRL-----
";

    fn refused(text: &str) -> String {
        judge(text.as_bytes()).unwrap_err()
    }

    #[test]
    fn one_list_in_force_among_text_and_old_ones_is_enough() {
        for text in [
            IN_FORCE.to_owned(),
            format!("{OLD}{IN_FORCE}"),
            format!("Certificate Revocation List (CRL):\n{IN_FORCE}\n{LESS_OLD}"),
            IN_FORCE.replace('\n', "\r\n"),
        ] {
            assert_eq!(judge(text.as_bytes()), Ok(()), "{text}");
        }
    }

    #[test]
    fn lists_that_are_all_over_are_told_with_the_day_of_the_last() {
        for text in [LESS_OLD.to_owned(), format!("{LESS_OLD}{OLD}"), format!("{OLD}{LESS_OLD}")] {
            let line = refused(&text);
            assert!(line.starts_with("expired on Feb  1 00:00:00 2002 GMT: put"), "{line}");
        }
    }

    #[test]
    fn what_is_no_list_is_told() {
        for text in ["", "garbage", "0\u{82}\u{1}", "-----END X509 CRL-----\n"] {
            assert!(refused(text).contains("holds no list"), "{text:?}");
        }
        let certificate = "-----BEGIN CERTIFICATE-----\n";
        for text in [certificate.to_owned(), format!("{IN_FORCE}{certificate}")] {
            assert!(refused(&text).contains("holds more than lists"), "{text:?}");
        }
        let begin = "-----BEGIN X509 CRL-----\n";
        for text in [
            begin.to_owned(),
            IN_FORCE.replace("MIGR", "MIGS"),
            IN_FORCE.replace("b4m23w==\n", ""),
            format!("{IN_FORCE}{begin}"),
        ] {
            assert!(refused(&text).contains("is damaged"), "{text:?}");
        }
        let large = IN_FORCE.repeat(1 + (16 << 20) / IN_FORCE.len());
        assert!(refused(&large).contains("larger than 16 MiB"));
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let line = check(Path::new("/nonexistent/crl.pem")).unwrap_err();
        assert!(line.starts_with("tls-crl-file /nonexistent/crl.pem cannot be read: No such file"));
    }
}
