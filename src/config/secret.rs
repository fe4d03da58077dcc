// SPDX-License-Identifier: MIT
//! Values that must never be printed.

use std::{env, fmt, fs::File, hint, io, io::Read, mem, ops::Deref, path::PathBuf};

/// No password or key is longer. A path to something else should not fill the memory.
const MAX_BYTES: u64 = 64 * 1024;

/// A password or the like, or where to get it.
///
/// Neither `Debug` nor anything else here shows the value.
#[derive(Clone, Eq, PartialEq)]
pub enum Secret {
    /// The value stands in the configuration.
    Literal(String),
    /// `env:NAME`: it stands in this environment variable.
    Env(String),
    /// `file:PATH`: it stands in this file, less one newline at its end.
    File(PathBuf),
}

/// Why a secret can't be had. Names the place, never the content.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SecretError {
    /// The variable doesn't exist.
    #[error("environment variable {0} is not set: set it where FreeSWITCH is started")]
    Unset(String),
    /// The file can't be read.
    #[error("secret file {path} can't be read: {source}", path = path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// There is nothing in it.
    #[error("{0} is empty")]
    Empty(String),
    /// It isn't text.
    #[error("{0} is not UTF-8 text")]
    NotText(String),
    /// It can't be meant.
    #[error("{0} is longer than 65536 bytes: it should hold nothing but the secret")]
    TooLong(String),
}

impl Secret {
    /// Returns what `text` from a configuration stands for. `None`: it names no place.
    pub fn parse(text: &str) -> Option<Self> {
        if let Some(name) = text.strip_prefix("env:") {
            let valid = !name.is_empty() && !name.contains(['=', '\0']);
            valid.then(|| Self::Env(name.to_owned()))
        } else if let Some(path) = text.strip_prefix("file:") {
            let valid = path.starts_with('/') && !path.contains('\0');
            valid.then(|| Self::File(PathBuf::from(path)))
        } else {
            (!text.is_empty()).then(|| Self::Literal(text.to_owned()))
        }
    }

    /// Returns the value itself, read anew from where it stands.
    ///
    /// May block on a file, so only the publisher calls it, when it connects.
    ///
    /// # Errors
    ///
    /// When the variable or file isn't there, or doesn't hold a short text.
    pub fn resolve(&self) -> Result<Exposed, SecretError> {
        match self {
            Self::Literal(value) => Ok(Exposed::new(value.clone())),
            Self::Env(name) => match env::var(name) {
                Ok(value) if value.is_empty() => Err(SecretError::Empty(self.place())),
                Ok(value) => Ok(Exposed::new(value)),
                Err(env::VarError::NotPresent) => Err(SecretError::Unset(name.clone())),
                Err(env::VarError::NotUnicode(_)) => Err(SecretError::NotText(self.place())),
            },
            Self::File(path) => {
                let mut bytes = Vec::new();
                File::open(path)
                    .and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes))
                    .map_err(|source| SecretError::Unreadable { path: path.clone(), source })?;
                if u64::try_from(bytes.len()).map_or(true, |len| len > MAX_BYTES) {
                    return Err(SecretError::TooLong(self.place()));
                }
                if bytes.last() == Some(&b'\n') {
                    bytes.pop();
                    if bytes.last() == Some(&b'\r') {
                        bytes.pop();
                    }
                }
                if bytes.is_empty() {
                    return Err(SecretError::Empty(self.place()));
                }
                match String::from_utf8(bytes) {
                    Ok(value) => Ok(Exposed::new(value)),
                    Err(_) => Err(SecretError::NotText(self.place())),
                }
            }
        }
    }

    fn place(&self) -> String {
        match self {
            Self::Literal(_) => "the secret in the configuration".to_owned(),
            Self::Env(name) => format!("environment variable {name}"),
            Self::File(path) => format!("secret file {}", path.display()),
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Literal(_) => f.write_str("***"),
            Self::Env(name) => write!(f, "env:{name}"),
            Self::File(path) => write!(f, "file:{}", path.display()),
        }
    }
}

/// A secret's value in the open, overwritten when it is dropped.
///
/// Keep it for as long as the login takes and no longer.
#[derive(Eq, PartialEq)]
pub struct Exposed(String);

impl Exposed {
    /// Takes `value` over.
    pub fn new(value: String) -> Self {
        Self(value)
    }
}

impl Deref for Exposed {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl Drop for Exposed {
    fn drop(&mut self) {
        let mut bytes = mem::take(&mut self.0).into_bytes();
        bytes.fill(0);
        // Without a reader the compiler may leave the overwriting out.
        hint::black_box(&bytes);
    }
}

impl fmt::Debug for Exposed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, process};

    use super::*;

    fn file(name: &str, content: &[u8]) -> PathBuf {
        let path = env::temp_dir().join(format!("rustbridge-secret-{}-{name}", process::id()));
        fs::write(&path, content).unwrap();
        path
    }

    #[test]
    fn a_text_names_a_place_or_is_the_secret() {
        assert_eq!(Secret::parse("env:A"), Some(Secret::Env("A".to_owned())));
        assert_eq!(Secret::parse("file:/a"), Some(Secret::File(PathBuf::from("/a"))));
        assert_eq!(Secret::parse("guest"), Some(Secret::Literal("guest".to_owned())));
        for wrong in ["", "env:", "env:A=B", "env:\0", "file:", "file:a", "file:/a\0"] {
            assert_eq!(Secret::parse(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_file_is_read_anew_each_time_and_loses_one_newline() {
        let path = file("rotated", b"one\n");
        let secret = Secret::File(path.clone());
        assert_eq!(&*secret.resolve().unwrap(), "one");
        fs::write(&path, b" two \r\n").unwrap();
        assert_eq!(&*secret.resolve().unwrap(), " two ");
        fs::write(&path, b"three\n\n").unwrap();
        assert_eq!(&*secret.resolve().unwrap(), "three\n");
        fs::remove_file(&path).unwrap();
        let error = secret.resolve().unwrap_err().to_string();
        assert!(error.contains(&path.display().to_string()), "{error}");
    }

    #[test]
    fn a_file_that_holds_no_secret_is_refused_without_showing_it() {
        let long = vec![b'h'; 70_000];
        let cases: [(&str, &[u8], &str); 3] = [
            ("empty", b"\n", "is empty"),
            ("binary", b"hunter2\xff", "not UTF-8"),
            ("long", &long, "longer than"),
        ];
        for (name, content, expected) in cases {
            let path = file(name, content);
            let error = Secret::File(path.clone()).resolve().unwrap_err();
            fs::remove_file(path).unwrap();
            assert!(error.to_string().contains(expected), "{error}");
            assert!(!format!("{error:?}").contains("hunter2"));
        }
        let endless = Secret::File(PathBuf::from("/dev/zero")).resolve().unwrap_err();
        assert!(endless.to_string().contains("longer than"));
    }

    #[test]
    fn a_variable_is_looked_up_when_the_secret_is_needed() {
        // Cargo sets this one for every test, and nothing sets the other.
        let name = Secret::Env("CARGO_PKG_NAME".to_owned());
        assert_eq!(&*name.resolve().unwrap(), "mod_rustbridge");
        let error = Secret::Env("RUSTBRIDGE_NO_SUCH_VARIABLE".to_owned()).resolve().unwrap_err();
        assert!(error.to_string().contains("RUSTBRIDGE_NO_SUCH_VARIABLE is not set"));
    }

    #[test]
    fn nothing_shows_a_secret() {
        let secret = Secret::Literal("hunter2".to_owned());
        assert_eq!(format!("{secret:?} {:?}", secret.resolve().unwrap()), "*** ***");
    }
}
