// SPDX-License-Identifier: MIT
//! A certificate authority for one test, and certificates of it, made by the `openssl` command.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::Folder;

/// A certificate and its key, both PEM; `both` holds the key and the certificate in one file, as Kafka wants them.
#[derive(Debug, Clone)]
pub struct Certificate {
    pub file: PathBuf,
    pub key: PathBuf,
    pub both: PathBuf,
}

/// An authority that signs for the length of a test.
#[derive(Debug)]
pub struct Authority {
    folder: Folder,
}

fn openssl(arguments: &[&str], folder: &Path) {
    let made = Command::new("openssl").args(arguments).current_dir(folder).output();
    let made = made.expect("openssl can be started");
    assert!(
        made.status.success(),
        "openssl {arguments:?}: {}",
        String::from_utf8_lossy(&made.stderr)
    );
}

impl Authority {
    pub fn new() -> Self {
        let folder = Folder::new("ca");
        let subject = "/CN=rustbridge test authority";
        openssl(
            &[
                "req",
                "-x509",
                "-newkey",
                "rsa:2048",
                "-nodes",
                "-keyout",
                "ca.key",
                "-out",
                "ca.pem",
                "-days",
                "2",
                "-subj",
                subject,
                "-addext",
                "basicConstraints=critical,CA:TRUE",
            ],
            folder.path(),
        );
        Self { folder }
    }

    /// The authority's own certificate: what a client trusts.
    pub fn certificate(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    /// A certificate for `name` and these subject alternative names: `&["DNS:localhost", "IP:127.0.0.1"]`.
    /// Negative days make one that has expired.
    pub fn sign(&self, name: &str, alternatives: &[&str], days: i32) -> Certificate {
        let days = days.to_string();
        self.certify(
            name,
            alternatives,
            &[
                "x509",
                "-req",
                "-CA",
                "ca.pem",
                "-CAkey",
                "ca.key",
                "-CAcreateserial",
                "-days",
                &days,
            ],
        )
    }

    /// The same, valid from a day on that nobody who runs this will see.
    pub fn sign_for_later(&self, name: &str, alternatives: &[&str]) -> Certificate {
        self.folder.write("ca.index", "");
        self.folder.write(
            "ca.cnf",
            "[ca]\ndefault_ca=this\n[this]\ndatabase=ca.index\nnew_certs_dir=.\ncertificate=ca.pem\n\
             private_key=ca.key\nrand_serial=yes\ndefault_md=sha256\npolicy=any\n[any]\ncommonName=supplied\n",
        );
        let (from, to) = ("20990101000000Z", "20991231235959Z");
        self.certify(
            name,
            alternatives,
            &["ca", "-batch", "-notext", "-config", "ca.cnf", "-startdate", from, "-enddate", to],
        )
    }

    /// Has the authority sign, by this command of `openssl`.
    fn certify(&self, name: &str, alternatives: &[&str], sign: &[&str]) -> Certificate {
        let file = |ending: &str| format!("{name}.{ending}");
        let (key, request, pem, both, extensions) =
            (file("key"), file("csr"), file("pem"), file("both.pem"), file("ext"));
        let names = if alternatives.is_empty() {
            "basicConstraints=CA:FALSE\n".to_owned()
        } else {
            format!("subjectAltName={}\n", alternatives.join(","))
        };
        self.folder.write(&extensions, names);
        let subject = format!("/CN={name}");
        let folder = self.folder.path();
        let new = [
            "req", "-newkey", "rsa:2048", "-nodes", "-keyout", &key, "-out", &request, "-subj",
            &subject,
        ];
        openssl(&new, folder);
        let files = ["-in", &request, "-out", &pem, "-extfile", &extensions];
        openssl(&[sign, &files].concat(), folder);
        let read =
            |name: &str| std::fs::read_to_string(folder.join(name)).expect("openssl wrote it");
        self.folder.write(&both, format!("{}{}", read(&key), read(&pem)));
        Certificate { file: folder.join(pem), key: folder.join(key), both: folder.join(both) }
    }
}
