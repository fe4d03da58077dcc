// SPDX-License-Identifier: MIT
//! `amqp://user:password@host:port/vhost`, by the AMQP URI specification of RabbitMQ, with one
//! thing more forgiving: an empty path after the `/` is the virtual host `/`, as is none.
//!
//! Messages never repeat a piece of a URL: what is written wrongly may be a password.

use std::net::Ipv6Addr;

/// Brokers in one list; a longer one is a mistake.
const MAX_BROKERS: usize = 32;

/// What one URL says.
#[derive(Eq, PartialEq)]
pub(super) struct ParsedUrl {
    pub(super) tls: bool,
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) vhost: String,
    pub(super) username: Option<String>,
    pub(super) password: Option<String>,
}

/// Reads a list of URLs separated by commas, or returns all that is wrong with them.
pub(super) fn parse_list(text: &str) -> Result<Vec<ParsedUrl>, Vec<String>> {
    let pieces: Vec<&str> = text.split(',').collect();
    let many = pieces.len() > 1;
    if pieces.len() > MAX_BROKERS {
        return Err(vec![format!("expected at most {MAX_BROKERS} brokers")]);
    }
    let mut urls = Vec::new();
    let mut problems = Vec::new();
    for (n, piece) in pieces.iter().enumerate() {
        match parse(piece.trim()) {
            Ok(url) => urls.push(url),
            Err(problem) if many => problems.push(format!("broker {}: {problem}", n + 1)),
            Err(problem) => problems.push(problem.to_owned()),
        }
    }
    let encrypted = urls.iter().filter(|url| url.tls).count();
    if encrypted != 0 && encrypted != urls.len() {
        let message = "amqp:// and amqps:// in one list: a failover would drop the encryption";
        problems.push(message.to_owned());
    }
    if problems.is_empty() { Ok(urls) } else { Err(problems) }
}

fn parse(url: &str) -> Result<ParsedUrl, &'static str> {
    let (scheme, rest) =
        url.split_once("://").ok_or("expected amqp://host:port/vhost or amqps://…")?;
    let tls = match scheme.to_ascii_lowercase().as_str() {
        "amqp" => false,
        "amqps" => true,
        _ => return Err("expected amqp:// or amqps:// at the start"),
    };
    if rest.contains(['?', '#']) {
        return Err(
            "expected no ? or #: options are parameters of the sink, such as heartbeat-ms \
                    (in a password they are %3F and %23)",
        );
    }
    if rest.contains(char::is_whitespace) {
        return Err("expected no spaces: write %20");
    }
    // The last @, so that one inside a password isn't taken for the end of it.
    let (login, rest) = match rest.rsplit_once('@') {
        Some((login, rest)) => (Some(login), rest),
        None => (None, rest),
    };
    let (address, path) = match rest.split_once('/') {
        Some((address, path)) => (address, path),
        None => (rest, ""),
    };
    let (username, password) = match login {
        None => (None, None),
        Some(login) => user(login)?,
    };
    let (host, port) = host_and_port(address, if tls { 5671 } else { 5672 })?;
    if path.contains('/') {
        return Err("expected one virtual host after the port: a / in its name is %2f");
    }
    let vhost = match path {
        "" => "/".to_owned(),
        path => decode(path).ok_or("expected UTF-8 and %XX in the virtual host")?,
    };
    if vhost.len() > 255 {
        return Err("expected a virtual host of at most 255 bytes");
    }
    Ok(ParsedUrl { tls, host, port, vhost, username, password })
}

fn user(login: &str) -> Result<(Option<String>, Option<String>), &'static str> {
    let wrong = "expected UTF-8 and %XX in user and password, and a user before the password";
    let (username, password) = match login.split_once(':') {
        Some((username, password)) => (username, Some(password)),
        None => (login, None),
    };
    let username = decode(username).filter(|name| !name.is_empty()).ok_or(wrong)?;
    let password = match password {
        None => None,
        Some("") => return Err("expected a password after the : of the user"),
        Some(password) => Some(decode(password).ok_or(wrong)?),
    };
    Ok((Some(username), password))
}

fn host_and_port(address: &str, default: u16) -> Result<(String, u16), &'static str> {
    let (host, port) = if let Some(rest) = address.strip_prefix('[') {
        let (host, port) = rest.split_once(']').ok_or("expected ] after the IPv6 address")?;
        if host.parse::<Ipv6Addr>().is_err() {
            return Err("expected an IPv6 address between [ and ]");
        }
        match port {
            "" => (host, None),
            port => (host, Some(port.strip_prefix(':').ok_or("expected : after the ]")?)),
        }
    } else {
        match address.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (address, None),
        }
    };
    let in_names = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
    if host.is_empty() || host.len() > 253 || !host.chars().all(in_names) {
        return Err("expected the name or address of a host");
    }
    let port = match port {
        None => default,
        Some(port) => port
            .parse()
            .ok()
            .filter(|number| *number != 0 && port.bytes().all(|byte| byte.is_ascii_digit()))
            .ok_or("expected a port of 1..=65535")?,
    };
    Ok((host.to_owned(), port))
}

/// Decodes `%XX`; `None` if that is broken, or isn't text in UTF-8 without NUL.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let high = char::from(rest.next()?).to_digit(16)?;
                let low = char::from(rest.next()?).to_digit(16)?;
                u8::try_from(high * 16 + low).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok().filter(|text| !text.contains('\0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Result<ParsedUrl, &'static str> {
        parse(text)
    }

    #[test]
    fn a_url_gives_all_its_parts_decoded() {
        let Ok(url) = one("AMQPS://f%40o:p%3A%40ss@rabbit.example.com:5000/a%2fb") else {
            panic!()
        };
        assert!(url.tls);
        assert_eq!((url.host.as_str(), url.port), ("rabbit.example.com", 5000));
        assert_eq!(url.vhost, "a/b");
        assert_eq!(url.username.as_deref(), Some("f@o"));
        assert_eq!(url.password.as_deref(), Some("p:@ss"));
    }

    #[test]
    fn what_a_url_leaves_out_has_its_default() {
        for (text, port) in [("amqp://h", 5672), ("amqps://h", 5671), ("amqp://h/", 5672)] {
            let Ok(url) = one(text) else { panic!("{text}") };
            assert_eq!((url.host.as_str(), url.port, url.vhost.as_str()), ("h", port, "/"));
            assert!(url.username.is_none() && url.password.is_none());
        }
        let Ok(url) = one("amqp://[::1]:5673/%2f") else { panic!() };
        assert_eq!((url.host.as_str(), url.port, url.vhost.as_str()), ("::1", 5673, "/"));
    }

    #[test]
    fn a_broken_url_is_refused_without_repeating_it() {
        for text in [
            "",
            "h:5672",
            "http://h",
            "amqp://",
            "amqp://:5672",
            "amqp://h:0",
            "amqp://h:65536",
            "amqp://h:+1",
            "amqp://h:",
            "amqp://user:hunter2/h",
            "amqp://user:@h",
            "amqp://:hunter2@h",
            "amqp://user:hunter%2@h",
            "amqp://user:hunter2%ff@h",
            "amqp://user:hunter2%00@h",
            "amqp://h/a/b",
            "amqp://h/%zz",
            "amqp://h/v?heartbeat=5",
            "amqp://[::1",
            "amqp://[h]",
            "amqp://[::1]5",
            "amqp://h h",
            "amqp://\u{fffd}",
        ] {
            let Err(problem) = one(text) else { panic!("{text}") };
            assert!(!problem.contains("hunter"), "{problem}");
        }
    }

    #[test]
    fn a_list_is_read_whole_and_keeps_its_order() {
        let Ok(urls) = parse_list("amqp://a, amqp://b:1/v ,amqp://c") else { panic!() };
        let hosts: Vec<_> = urls.iter().map(|url| url.host.as_str()).collect();
        assert_eq!(hosts, ["a", "b", "c"]);
        assert_eq!(parse_list("amqp://a,,nonsense").err().map_or(0, |p| p.len()), 2);
        assert!(parse_list("amqp://a,amqps://b").is_err());
        assert!(parse_list(&"amqp://a,".repeat(1_000_000)).is_err());
    }
}
