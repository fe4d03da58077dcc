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
        Self::named("rustbridge test authority")
    }

    /// One whose list another's certificates do not ask for.
    pub fn named(name: &str) -> Self {
        let folder = Folder::new("ca");
        let subject = format!("/CN={name}");
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
                &subject,
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
        self.keep_books();
        let (from, to) = ("20990101000000Z", "20991231235959Z");
        self.certify(
            name,
            alternatives,
            &["ca", "-batch", "-notext", "-config", "ca.cnf", "-startdate", from, "-enddate", to],
        )
    }

    /// A list of revoked certificates with these on it, in force for longer than this runs. It is signed anew each time: what
    /// an earlier list held, a later one of the same name need not.
    pub fn list(&self, name: &str, revoked: &[&Certificate]) -> PathBuf {
        self.list_until("20991231235959Z", name, revoked)
    }

    /// An empty one that has expired.
    pub fn list_that_is_over(&self, name: &str) -> PathBuf {
        self.list_until("20010201000000Z", name, &[])
    }

    fn list_until(&self, end: &str, name: &str, revoked: &[&Certificate]) -> PathBuf {
        self.keep_books();
        let folder = self.folder.path();
        let file = format!("{name}.crl");
        for certificate in revoked {
            let own = certificate.file.to_str().expect("its name is text");
            openssl(&["ca", "-config", "ca.cnf", "-revoke", own], folder);
        }
        let dates = ["-crl_lastupdate", "20010101000000Z", "-crl_nextupdate", end];
        let new = ["ca", "-config", "ca.cnf", "-gencrl", "-out", &file];
        openssl(&[&new[..], &dates].concat(), folder);
        folder.join(file)
    }

    /// What `openssl ca` wants to have, with nothing in it.
    fn keep_books(&self) {
        self.folder.write("ca.index", "");
        self.folder.write(
            "ca.cnf",
            "[ca]\ndefault_ca=this\n[this]\ndatabase=ca.index\nnew_certs_dir=.\ncertificate=ca.pem\n\
             private_key=ca.key\nrand_serial=yes\ndefault_md=sha256\npolicy=any\n[any]\ncommonName=supplied\n",
        );
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
