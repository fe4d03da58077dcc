// SPDX-License-Identifier: MIT
//! From the neutral tree to the typed configuration.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use crate::config::{
    Config, Known, SinkConfig, SinkKind,
    amqp::AmqpConfig,
    delivery::{ClassConfig, DeadLetterConfig, QueueConfig, ReconnectConfig, SpoolSettings},
    error::{ConfigError, Place, Problem},
    file::FileConfig,
    kafka::KafkaConfig,
    kind::Kind,
    params::Params,
    reference::{self, Group, amqp, kafka, settings, sink, sink::SinkType},
    section::Section,
};

/// Each sink has a thread, a queue and a spool of its own.
const MAX_SINKS: usize = 64;

impl Config {
    /// Reads the element `<configuration>`.
    ///
    /// Pure: no file is opened and no secret resolved, so it may run on any thread.
    ///
    /// # Errors
    ///
    /// Returns every problem there is, in the order of the file.
    pub fn read(root: &Section, known: &Known<'_>) -> Result<Self, ConfigError> {
        let mut reader = Reader { known, problems: Vec::new() };
        let config = reader.configuration(root);
        match config {
            Some(config) if reader.problems.is_empty() => Ok(config),
            _ => Err(ConfigError { problems: reader.problems }),
        }
    }
}

struct Reader<'k> {
    known: &'k Known<'k>,
    problems: Vec<Problem>,
}

impl Reader<'_> {
    fn configuration(&mut self, root: &Section) -> Option<Config> {
        let place = Place::new("configuration");
        if root.name != "configuration" {
            let message = "expected <configuration> as the outermost element";
            self.problems.push(Problem::new(&place, message).found(&root.name));
        }
        for (name, _) in &root.attributes {
            if !matches!(name.as_str(), "name" | "description") {
                let problem = Problem::new(&place, "unknown attribute");
                self.problems.push(problem.parameter(name).nearest(name, ["name", "description"]));
            }
        }
        self.no_params(root, &place, "a parameter stands in <settings> or in a <sink>");
        let mut sections = self.children(root, &place, &["settings", "sinks"]).into_iter();
        let (settings, sinks) = (sections.next().flatten(), sections.next().flatten());

        let empty = Section::new("settings");
        let settings_place = Place::new("settings");
        let section = settings.unwrap_or(&empty);
        self.no_attributes(section, &settings_place);
        self.children(section, &settings_place, &[]);
        let mut params = Params::new(settings_place, &section.params);
        let mut config = Config {
            node_name: params.read(&settings::NODE_NAME),
            shutdown_timeout: params.read(&settings::SHUTDOWN_TIMEOUT_MS),
            max_event_bytes: params.read(&settings::MAX_EVENT_BYTES),
            live_calls: params.read(&settings::LIVE_CALLS),
            storage_dir: params.read(&settings::STORAGE_DIR),
            sinks: Vec::new(),
        };
        self.problems.extend(params.finish(&[&reference::SETTINGS]));
        config.sinks = self.sinks(sinks, config.max_event_bytes)?;
        Some(config)
    }

    /// Reads the sinks; `None` if there is none, or one can't be told from its problems.
    fn sinks(
        &mut self,
        sinks: Option<&Section>,
        max_event_bytes: usize,
    ) -> Option<Vec<SinkConfig>> {
        let place = Place::new("sinks");
        let Some(section) = sinks else {
            let message = "expected <sinks> with a <sink> for each place that events go to";
            self.problems.push(Problem::new(&Place::new("configuration"), message));
            return None;
        };
        self.no_attributes(section, &place);
        self.no_params(section, &place, "a parameter stands in <settings> or in a <sink>");
        let mut found = Vec::new();
        let mut number = 0;
        let mut is_whole = true;
        for child in &section.children {
            if child.name != "sink" {
                is_whole = false;
                let problem = Problem::new(&place, "expected nothing but <sink>");
                self.problems.push(problem.found(&child.name).nearest(&child.name, ["sink"]));
                continue;
            }
            number += 1;
            if number > MAX_SINKS {
                let message = format!("expected at most {MAX_SINKS} sinks");
                self.problems.push(Problem::new(&place, message));
                return None;
            }
            match self.sink(child, number, max_event_bytes) {
                Some(sink) => found.push(sink),
                None => is_whole = false,
            }
        }
        if section.children.is_empty() {
            let message = "expected at least one <sink>";
            self.problems.push(Problem::new(&place, message));
            is_whole = false;
        }
        self.shared(&found);
        is_whole.then_some(found)
    }

    fn sink(
        &mut self,
        section: &Section,
        number: usize,
        max_event_bytes: usize,
    ) -> Option<SinkConfig> {
        let attribute = |wanted| {
            section
                .attributes
                .iter()
                .find(|(name, _)| name == wanted)
                .map(|(_, text)| text.as_str())
        };
        let named = attribute(sink::NAME.name).filter(|name| sink::NAME.kind.parse(name).is_some());
        let place = Place::sink(named, number);

        let mut attributes = Params::of_attributes(place.clone(), &section.attributes);
        let name = attributes.read(&sink::NAME);
        let sink_type = attributes.read(&sink::TYPE);
        let events = attributes.events(&sink::EVENTS, self.known.events);
        if events.is_empty() {
            attributes.clash(
                &[&sink::EVENTS],
                "selects no event: to turn a sink off set enabled to false",
            );
        }
        match sink_type {
            Some(SinkType::Amqp) if !self.known.amqp => {
                attributes.wrong(
                    &sink::TYPE,
                    "amqp is not in this library: build it with the feature amqp",
                );
            }
            Some(SinkType::Kafka) if !self.known.kafka => {
                attributes.wrong(
                    &sink::TYPE,
                    "kafka is not in this library: build it with the feature kafka",
                );
            }
            _ => {}
        }
        self.problems.extend(attributes.finish(&[&reference::ATTRIBUTES]));

        let is_kafka = sink_type == Some(SinkType::Kafka);
        let blocks: &[&'static str] = if is_kafka { &["librdkafka"] } else { &[] };
        let block = self.children(section, &place, blocks).into_iter().next().flatten();

        let mut params = Params::new(place.clone(), &section.params);
        let enabled = params.read(&sink::ENABLED);
        let linger = params.read(&sink::LINGER_MS);
        let spool = SpoolSettings::read(&mut params, max_event_bytes);
        let queue = QueueConfig::read(&mut params, &spool, max_event_bytes);
        let classes = ClassConfig::read(&mut params, self.known.events);
        let reconnect = ReconnectConfig::read(&mut params);
        let exchange_or_topic = match sink_type {
            Some(SinkType::Amqp) => params.read(&amqp::DEAD_LETTER_EXCHANGE),
            Some(SinkType::Kafka) => params.read(&kafka::DEAD_LETTER_TOPIC),
            Some(SinkType::File) | None => None,
        };
        let dead_letters = DeadLetterConfig::read(&mut params, exchange_or_topic);
        let kind = sink_type.map(|sink_type| match sink_type {
            SinkType::File => SinkKind::File(FileConfig::read(&mut params)),
            SinkType::Amqp => SinkKind::Amqp(AmqpConfig::read(&mut params)),
            SinkType::Kafka => SinkKind::Kafka(KafkaConfig::read(&mut params, block, spool.mode)),
        });
        let all_types = [&reference::SINK, &reference::FILE, &reference::AMQP, &reference::KAFKA];
        let groups: &[&Group] = match sink_type {
            Some(SinkType::File) => &[&reference::SINK, &reference::FILE],
            Some(SinkType::Amqp) => &[&reference::SINK, &reference::AMQP],
            Some(SinkType::Kafka) => &[&reference::SINK, &reference::KAFKA],
            None => &all_types,
        };
        self.problems.extend(params.finish(groups));
        if let Some(SinkKind::Kafka(kafka)) = kind.as_ref().filter(|_| enabled) {
            let words = (self.known.kafka_problems)(kafka).into_iter();
            self.problems.extend(words.map(|words| Problem::new(&place, words)));
        }
        Some(SinkConfig {
            name: name?,
            kind: kind?,
            events,
            queue,
            spool,
            classes,
            reconnect,
            linger,
            dead_letters,
            enabled,
        })
    }

    /// Looks for what two sinks can't share.
    fn shared(&mut self, sinks: &[SinkConfig]) {
        let mut names = BTreeSet::new();
        let mut places: BTreeMap<(&'static str, PathBuf), &str> = BTreeMap::new();
        for sink in sinks {
            let place = Place::sink(Some(&sink.name), 0);
            if !names.insert(&sink.name) {
                let message = "another sink has this name: give each its own";
                self.problems.push(Problem::new(&place, message).parameter(sink::NAME.name));
                continue;
            }
            let file = match &sink.kind {
                SinkKind::File(file) => {
                    Some(PathBuf::from(file.path.replace("${sink}", &sink.name)))
                }
                SinkKind::Amqp(_) | SinkKind::Kafka(_) => None,
            };
            let used = [
                (reference::file::PATH.name, file),
                (sink::SPOOL_DIR.name, sink.spool.dir.clone()),
                (sink::DEAD_LETTER_DIR.name, sink.dead_letters.dir.clone()),
            ];
            for (parameter, path) in used {
                let Some(path) = path.filter(|path| !path.as_os_str().is_empty()) else { continue };
                if let Some(other) = places.insert((parameter, path), &sink.name) {
                    let message = format!("sink \"{other}\" has the same one: give each its own");
                    self.problems.push(Problem::new(&place, message).parameter(parameter));
                }
            }
        }
    }

    /// Returns, for each of `expected`, the child of that name; notes others and repeated ones.
    fn children<'s>(
        &mut self,
        section: &'s Section,
        place: &Place,
        expected: &[&'static str],
    ) -> Vec<Option<&'s Section>> {
        let mut found = vec![None; expected.len()];
        for child in &section.children {
            let name = child.name.as_str();
            let slot =
                expected.iter().position(|known| *known == name).and_then(|n| found.get_mut(n));
            let problem = match slot {
                Some(slot @ None) => {
                    *slot = Some(child);
                    continue;
                }
                Some(Some(_)) => Problem::new(place, "element given more than once: make it one"),
                None => {
                    let known = expected.iter().copied().chain(["param"]);
                    Problem::new(place, "unknown element").nearest(name, known)
                }
            };
            self.problems.push(problem.found(name));
        }
        found
    }

    fn no_attributes(&mut self, section: &Section, place: &Place) {
        for (name, _) in &section.attributes {
            self.problems.push(Problem::new(place, "expected no attributes").found(name));
        }
    }

    fn no_params(&mut self, section: &Section, place: &Place, message: &str) {
        for pair in &section.params {
            let problem = Problem::new(place, format!("out of place: {message}"));
            self.problems.push(problem.parameter(pair.name.as_deref().unwrap_or("<param>")));
        }
    }
}
