// SPDX-License-Identifier: MIT
//! What is known of the brokers between two deliveries.

/// Whether brokers answer, and what the last error was.
#[derive(Debug, Default)]
pub(super) struct Health {
    /// A broker has answered since the producer was made.
    connected: bool,
    /// librdkafka has seen the last of the known brokers go.
    all_down: bool,
    /// The last error of a connection, in librdkafka's words.
    last_error: Option<String>,
    /// A broker has refused the login, or one side the other's certificate.
    refusal: Option<String>,
}

impl Health {
    /// A broker answers.
    pub(super) fn up(&mut self) {
        if !self.connected || self.all_down || self.last_error.is_some() {
            *self = Self { connected: true, ..Self::default() };
        }
    }

    /// No broker is connected at this moment. While nothing is sent librdkafka tries again every second, but counts a
    /// broker that it knows under two names as down only when both are: what tells is that a connection failed.
    pub(super) fn none_up(&mut self) {
        self.all_down |= self.connected && self.last_error.is_some();
    }

    /// No known broker is connected.
    pub(super) fn all_down(&mut self) {
        self.all_down = true;
    }

    /// A connection failed or broke.
    pub(super) fn failed(&mut self, reason: &str) {
        self.last_error = Some(lasting(reason).to_owned());
    }

    /// A broker was reached, and there will be no connection until somebody acts.
    pub(super) fn refused(&mut self, reason: &str) {
        self.failed(reason);
        self.refusal = Some(lasting(reason).to_owned());
    }

    /// Why no broker talks to us. `None` while another one does, or may.
    pub(super) fn refusal(&self) -> Option<&str> {
        self.refusal.as_deref().filter(|_| self.all_down)
    }

    /// Whether it is no use to wait for an answer now.
    pub(super) fn is_down(&self) -> bool {
        self.all_down
    }

    /// What is wrong, in one line, if anything is.
    pub(super) fn degraded(&self, peer: &str) -> Option<String> {
        let last_error = self.last_error.as_deref().unwrap_or("no answer yet");
        if self.all_down {
            Some(format!("all brokers of {peer} are down: {last_error}"))
        } else if !self.connected {
            Some(format!("connecting to {peer}: {last_error}"))
        } else {
            None
        }
    }
}

/// An error without the time that it took and how often it came before, by which each would be news.
pub(super) fn lasting(reason: &str) -> &str {
    reason.split_once(" (after ").map_or(reason, |(words, _)| words)
}

/// Whether librdkafka's statistics show a broker that is connected.
pub(super) fn any_broker_up(statistics: &[u8]) -> bool {
    let Ok(statistics) = serde_json::from_slice::<serde_json::Value>(statistics) else {
        return false;
    };
    let field = |broker: &serde_json::Value, name: &str, value: &str| {
        broker.get(name).and_then(serde_json::Value::as_str) == Some(value)
    };
    statistics.get("brokers").and_then(serde_json::Value::as_object).is_some_and(|brokers| {
        let mut brokers = brokers.values();
        // librdkafka counts a broker of its own that is always there.
        brokers.any(|broker| field(broker, "state", "UP") && !field(broker, "source", "internal"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_login_counts_only_while_no_broker_is_up() {
        let mut health = Health::default();
        health.refused("wrong password");
        assert_eq!(health.refusal(), None);
        health.all_down();
        assert_eq!(health.refusal(), Some("wrong password"));
        health.up();
        assert_eq!(health.refusal(), None);
        assert_eq!(health.degraded("k"), None);
    }

    #[test]
    fn the_state_names_the_last_error_until_a_broker_answers() {
        let mut health = Health::default();
        assert_eq!(
            health.degraded("k:9092").as_deref(),
            Some("connecting to k:9092: no answer yet")
        );
        health.failed("connection refused (after 3ms in state CONNECT, 2 identical error(s))");
        health.all_down();
        assert_eq!(
            health.degraded("k:9092").as_deref(),
            Some("all brokers of k:9092 are down: connection refused")
        );
    }

    #[test]
    fn a_broker_that_went_while_nothing_was_sent_is_noticed_and_one_that_only_hung_up_is_not() {
        let mut health = Health::default();
        health.up();
        health.none_up();
        assert_eq!(health.degraded("k"), None);
        health.failed("connection refused");
        health.none_up();
        assert_eq!(
            health.degraded("k").as_deref(),
            Some("all brokers of k are down: connection refused")
        );
        health.up();
        assert_eq!(health.degraded("k"), None);
    }

    #[test]
    fn only_a_real_broker_that_is_up_counts() {
        let with = |source: &str, state: &str| {
            format!(r#"{{"brokers":{{"x":{{"source":"{source}","state":"{state}"}}}}}}"#)
        };
        assert!(any_broker_up(with("learned", "UP").as_bytes()));
        assert!(!any_broker_up(with("internal", "UP").as_bytes()));
        assert!(!any_broker_up(with("configured", "DOWN").as_bytes()));
        assert!(!any_broker_up(b"{"));
    }
}
