// SPDX-License-Identifier: MIT
//! The numbers of a stream, as a consumer sees them: every hole must be told by a gap record, and nothing else may be.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::support::clients::Message;
use crate::support::oracle::ranges;

/// What one boot of a switch has sent.
#[derive(Debug, Default)]
pub(crate) struct Stream {
    /// The number of each event that arrived, once.
    pub(crate) numbers: BTreeSet<u64>,
    /// Every number that a gap record names as missing.
    pub(crate) told: BTreeSet<u64>,
    /// Why, as the gap records have it, added up.
    pub(crate) reasons: BTreeMap<String, u64>,
    /// How many gap records there are, repetitions left out.
    pub(crate) gaps: usize,
    /// Messages whose id came before.
    pub(crate) duplicates: usize,
    pub(crate) messages: Vec<Message>,
}

/// The id to de-duplicate by.
pub(crate) fn id(message: &Message) -> String {
    let property = message.properties.get("message_id").and_then(serde_json::Value::as_str);
    let header = message.headers.get("message-id").map(String::as_str);
    property.or(header).unwrap_or_else(|| panic!("no message id: {message:?}")).to_owned()
}

fn hash(body: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    body.hash(&mut hasher);
    hasher.finish()
}

/// The streams of what arrived, by boot.
pub(crate) fn streams(messages: Vec<Message>) -> BTreeMap<String, Stream> {
    let mut streams: BTreeMap<String, Stream> = BTreeMap::new();
    let mut ids: BTreeMap<String, u64> = BTreeMap::new();
    for message in messages {
        let boot = message.headers.get("boot").expect("every message names its boot").clone();
        let seq = message.number("seq").expect("every message has a number");
        let stream = streams.entry(boot).or_default();
        let event = message.json();
        let text = |name: &str| event.get(name).and_then(serde_json::Value::as_str);
        let is_gap = text("Event-Subclass") == Some("rustbridge::gap");
        // What the module makes itself and had no time to note as told is made anew, with a time of its own.
        let is_own = is_gap || text("Event-Subclass") == Some("rustbridge::orphan");
        if let Some(known) = ids.get(&id(&message)) {
            assert!(
                is_own || *known == hash(&message.body),
                "one id, two contents: {}",
                id(&message)
            );
            stream.duplicates += 1;
            // The same number, unless an orphan is told once more by a later boot.
            if !is_gap {
                stream.numbers.insert(seq);
            }
        } else {
            ids.insert(id(&message), hash(&message.body));
            if is_gap {
                let number = |name: &str| -> u64 { text(name).unwrap().parse().unwrap() };
                let (first, last) = (number("Rustbridge-First-Seq"), number("Rustbridge-Last-Seq"));
                assert_eq!(number("Rustbridge-Missing"), last - first + 1);
                assert_eq!(seq, last, "a gap record has the last missing number");
                stream.told.extend(first..=last);
                stream.gaps += 1;
                for pair in text("Rustbridge-Reasons").unwrap_or_default().split_whitespace() {
                    let (reason, count) = pair.split_once('=').expect("name=count");
                    let count: u64 = count.parse().expect("a count is a number");
                    *stream.reasons.entry(reason.to_owned()).or_default() += count;
                }
            } else {
                stream.numbers.insert(seq);
            }
        }
        stream.messages.push(message);
    }
    streams
}

impl Stream {
    /// The ids of the messages that are no gap records.
    pub(crate) fn events(&self) -> impl Iterator<Item = String> {
        let subclass = |message: &Message| message.json().get("Event-Subclass").cloned();
        let gap = Some(serde_json::Value::from("rustbridge::gap"));
        self.messages.iter().filter(move |message| subclass(message) != gap).map(id)
    }

    /// The largest number that is known of.
    pub(crate) fn last(&self) -> u64 {
        self.numbers.iter().chain(&self.told).copied().max().unwrap_or(0)
    }

    /// Every number from one to the last has arrived or is told as missing, and none is both.
    pub(crate) fn assert_told(&self) {
        let both: Vec<u64> = self.numbers.intersection(&self.told).copied().collect();
        assert!(both.is_empty(), "told as missing, and here: {}", ranges(&both));
        self.assert_no_hole();
    }

    /// Every number from one to the last has arrived, or is told as missing, or both: of a dead letter that was sent again.
    pub(crate) fn assert_no_hole(&self) {
        let untold: Vec<u64> = (1..=self.last())
            .filter(|seq| !self.numbers.contains(seq) && !self.told.contains(seq))
            .collect();
        assert!(untold.is_empty(), "missing, and not told: {}", ranges(&untold));
    }
}
