// SPDX-License-Identifier: MIT
//! Error codes that brokers give, one by one, and a long way to them, from librdkafka's mock cluster.

use std::time::{Duration, Instant};

use mod_rustbridge::config::kafka::PropertyValue;
use mod_rustbridge::sink::{Outcome, Sink as _};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey as Api, RDKafkaRespErr as Err};

use crate::broker::PATIENCE;
use crate::driver::{Driver, Report, config, event};

type Cluster = MockCluster<'static, DefaultProducerContext>;

const TOPIC: &str = "fs.events";
const PARTITIONS: i32 = 3;
/// Events are published in so many rounds, the next when all of one are delivered: so there is a request for each.
const ROUNDS: usize = 5;
const EVENTS: usize = 40;
const OK: Err = Err::RD_KAFKA_RESP_ERR_NO_ERROR;

fn cluster() -> Cluster {
    let cluster = MockCluster::new(3).unwrap();
    cluster.create_topic(TOPIC, PARTITIONS, 3).unwrap();
    cluster
}

/// How many messages the brokers have taken, repetitions included.
fn taken(cluster: &Cluster) -> usize {
    let client: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", cluster.bootstrap_servers()).create().unwrap();
    let end = |partition| client.fetch_watermarks(TOPIC, partition, PATIENCE).unwrap().1;
    usize::try_from((0..PARTITIONS).map(end).sum::<i64>()).unwrap()
}

/// Publishes events, `before` each round, the first of which begins with the opening of the sink, with the faults that are made there,
/// by which so many connections are `lost`.
fn publish_with(lost: usize, before: impl Fn(usize, &Cluster)) -> Report {
    let cluster = cluster();
    let mut driver = Driver::new(config(&cluster.bootstrap_servers(), TOPIC));
    let mut whole = Report::default();
    for round in 0..ROUNDS {
        before(round, &cluster);
        while round == 0
            && let Err(error) = driver.open()
        {
            whole.reopened.push(error.to_string());
            assert!(whole.reopened.len() < 20, "{whole:?}");
        }
        let first = round * EVENTS;
        let numbers = first..first + EVENTS;
        let records: Vec<_> = numbers.map(|n| event(n, &format!("call-{}", n % 7), 100)).collect();
        let report = driver.publish(&records, |_| {});
        whole.delivered.extend(report.delivered.iter().map(|at| first + at));
        whole.nacked += report.nacked;
        whole.reopened.extend(report.reopened);
    }
    driver.close();
    let all = ROUNDS * EVENTS;
    let mut delivered = whole.delivered.clone();
    delivered.sort_unstable();
    assert!(delivered.into_iter().eq(0..all), "{whole:?}");
    // Another producer repeats what the one before had in flight. One whose connection is lost does too: real brokers know such a
    // repetition by its number, those of the mock cluster take it for another message.
    let taken = taken(&cluster);
    let most = all + (lost + whole.reopened.len()) * EVENTS;
    assert!((all..=most).contains(&taken), "{taken} of {all}, {whole:?}");
    whole
}

/// Publishes while the first requests of a kind fail with `errors`.
fn publish_against(api: Api, errors: &[Err]) -> Report {
    let lost = errors.iter().filter(|code| **code == Err::RD_KAFKA_RESP_ERR__TRANSPORT).count();
    publish_with(lost, |round, cluster| {
        if round == 0 {
            cluster.request_errors(api, errors);
        }
    })
}

/// What librdkafka retries by itself, in order and without a repetition.
const RETRIED: [Err; 14] = [
    Err::RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE,
    Err::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION,
    Err::RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT,
    Err::RD_KAFKA_RESP_ERR_BROKER_NOT_AVAILABLE,
    Err::RD_KAFKA_RESP_ERR_REPLICA_NOT_AVAILABLE,
    Err::RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS,
    Err::RD_KAFKA_RESP_ERR_COORDINATOR_NOT_AVAILABLE,
    Err::RD_KAFKA_RESP_ERR_NOT_COORDINATOR,
    Err::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS,
    Err::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS_AFTER_APPEND,
    Err::RD_KAFKA_RESP_ERR_KAFKA_STORAGE_ERROR,
    Err::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART,
    Err::RD_KAFKA_RESP_ERR_INVALID_MSG,
    Err::RD_KAFKA_RESP_ERR__TRANSPORT,
];

#[test]
fn what_librdkafka_retries_never_reaches_the_publisher() {
    for code in RETRIED {
        for errors in [vec![code], vec![code; 3], vec![OK, OK, code]] {
            let report = publish_against(Api::Produce, &errors);
            assert_eq!((report.nacked, &report.reopened[..]), (0, &[][..]), "{errors:?}");
        }
    }
}

#[test]
fn what_librdkafka_gives_back_is_delivered_by_the_publishers_next_try() {
    for code in [
        Err::RD_KAFKA_RESP_ERR_NETWORK_EXCEPTION,
        Err::RD_KAFKA_RESP_ERR_THROTTLING_QUOTA_EXCEEDED,
        Err::RD_KAFKA_RESP_ERR_FENCED_LEADER_EPOCH,
        Err::RD_KAFKA_RESP_ERR_UNKNOWN,
    ] {
        for errors in [&[code][..], &[OK, OK, code]] {
            let report = publish_against(Api::Produce, errors);
            assert!(report.nacked > 0, "{errors:?}");
            assert_eq!(report.reopened, [""; 0], "{errors:?}");
        }
    }
}

/// Publishes while the third request for a producer's id fails. There is one for each producer, so two have to end before.
fn publish_against_third_id(code: Err) -> Report {
    publish_with(0, |round, cluster| {
        if round == 2 {
            cluster.request_errors(Api::InitProducerId, &[code]);
        }
        if round == 1 || round == 2 {
            let end = Err::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER;
            cluster.request_errors(Api::Produce, &[end]);
        }
    })
}

#[test]
fn an_error_that_ends_the_producer_costs_a_new_one_and_no_message() {
    let anew = |report: &Report, producers: usize| {
        assert_eq!((report.reopened.len(), report.nacked), (producers, 0), "{report:?}");
        assert!(report.reopened.iter().all(|line| line.contains("is built anew")), "{report:?}");
    };
    for code in [
        Err::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER,
        Err::RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH,
        Err::RD_KAFKA_RESP_ERR_INVALID_PRODUCER_ID_MAPPING,
        Err::RD_KAFKA_RESP_ERR_PRODUCER_FENCED,
    ] {
        anew(&publish_against(Api::Produce, &[code]), 1);
        anew(&publish_against(Api::Produce, &[OK, OK, code]), 1);
    }
    for code in
        [Err::RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH, Err::RD_KAFKA_RESP_ERR_PRODUCER_FENCED]
    {
        anew(&publish_against(Api::InitProducerId, &[code]), 1);
        anew(&publish_against_third_id(code), 3);
    }
}

#[test]
fn an_error_that_an_operator_must_mend_is_a_refusal_and_costs_no_message() {
    let refused = |report: &Report, errors: usize, words: &str| {
        assert_eq!((report.reopened.len(), report.nacked), (errors, 0), "{report:?}");
        let line = report.reopened.last().unwrap();
        assert!(line.contains("refuses") && line.contains(words), "{line}");
    };
    for (code, words) in [
        (Err::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED, "no permission for topic"),
        (Err::RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED, "authorization failed"),
        (Err::RD_KAFKA_RESP_ERR_INVALID_REQUIRED_ACKS, "required acks"),
        (Err::RD_KAFKA_RESP_ERR_UNSUPPORTED_FOR_MESSAGE_FORMAT, "Message format"),
    ] {
        refused(&publish_against(Api::Produce, &[code]), 1, words);
        refused(&publish_against(Api::Produce, &[OK, OK, code]), 1, words);
    }
    let code = Err::RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED;
    refused(&publish_against(Api::InitProducerId, &[code]), 1, "authorization");
    refused(&publish_against_third_id(code), 3, "authorization");
}

/// What is only an error now.
const PASSING: [Err; 5] = [
    Err::RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE,
    Err::RD_KAFKA_RESP_ERR_NOT_COORDINATOR,
    Err::RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS,
    Err::RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT,
    Err::RD_KAFKA_RESP_ERR_UNKNOWN,
];

#[test]
fn errors_of_the_producer_id_are_waited_out() {
    for code in PASSING {
        let report = publish_against(Api::InitProducerId, &[code; 2]);
        assert_eq!((report.nacked, &report.reopened[..]), (0, &[][..]), "{code:?}");
        let report = publish_against_third_id(code);
        assert_eq!((report.nacked, report.reopened.len()), (0, 2), "{code:?}: {report:?}");
    }
}

/// How long it is looked whether anything arrives that cannot: longer than librdkafka waits before it asks again.
const LOOK: Duration = Duration::from_millis(400);

/// The mock cluster answers requests for metadata with a topic's error and no other, the first as well as later ones. A leader that has
/// moved is not found meanwhile.
#[test]
fn errors_of_metadata_are_waited_out() {
    for code in PASSING {
        let cluster = cluster();
        // From version 10 on, who sends to the wrong broker is told of the right one, and asks for no metadata.
        cluster.apiversion(Api::Produce, Some(3), Some(9)).unwrap();
        let mut driver = Driver::new(config(&cluster.bootstrap_servers(), TOPIC));
        for round in 0..3 {
            cluster.topic_error(TOPIC, code).unwrap();
            for partition in 0..PARTITIONS {
                let leader = Some((partition + round) % 3 + 1);
                cluster.partition_leader(TOPIC, partition, leader).unwrap();
            }
            if round == 0 {
                driver.open().unwrap();
            }
            for n in 0..EVENTS {
                driver.send(n as u64, &event(n, &format!("call-{}", n % 7), 100), n).unwrap();
            }
            let (until, mut outcomes) = (Instant::now() + LOOK, Vec::new());
            while Instant::now() < until {
                driver.sink.poll(Duration::from_millis(50), &mut outcomes).unwrap();
            }
            assert_eq!(outcomes, [], "{code:?}: nobody knows where to send it");
            cluster.topic_error(TOPIC, OK).unwrap();
            let reports =
                driver.poll_until("the reports", |outcomes, _| outcomes.len() == EVENTS).unwrap();
            let delivered = |outcome: &Outcome| matches!(outcome, Outcome::Delivered(_));
            assert!(reports.iter().all(delivered), "{code:?}: {reports:?}");
        }
        driver.close();
        assert_eq!(taken(&cluster), 3 * EVENTS, "{code:?}");
    }
}

#[test]
fn brokers_that_are_seconds_away_cost_no_message_and_get_none_twice() {
    let cluster = cluster();
    let away = |milliseconds| {
        // All of them.
        cluster.broker_round_trip_time(-1, Duration::from_millis(milliseconds)).unwrap();
    };
    // From how many deliveries on. It begins far away, so that the sink opens over the long way too.
    let mut ways = [(50, 200), (200, 0), (300, 2000), (400, 200)].into_iter().peekable();
    away(2000);
    let mut config = config(&cluster.bootstrap_servers(), TOPIC);
    // Many requests, so that some are under way whenever the way becomes longer or shorter.
    let small = PropertyValue::Plain("20".to_owned());
    config.properties.push(("batch.num.messages".to_owned(), small));
    let mut driver = Driver::opened(config);
    let records: Vec<_> = (0..500).map(|n| event(n, &format!("call-{}", n % 50), 100)).collect();
    let report = driver.publish(&records, |delivered| {
        while let Some((_, milliseconds)) = ways.next_if(|(from, _)| delivered >= *from) {
            away(milliseconds);
        }
    });
    assert_eq!(ways.next(), None);
    // And it is a long way: what is sent over nothing else takes as long.
    away(2000);
    let started = Instant::now();
    let last = driver.publish(&[event(500, "call-0", 100)], |_| {});
    assert!(started.elapsed() >= Duration::from_secs(2), "{:?}", started.elapsed());
    assert_eq!((last.nacked, &last.delivered[..]), (0, &[0][..]));
    driver.close();
    away(0);
    assert_eq!((report.nacked, &report.reopened[..]), (0, &[][..]));
    let mut delivered = report.delivered;
    delivered.sort_unstable();
    assert!(delivered.into_iter().eq(0..500));
    assert_eq!(taken(&cluster), 501);
}
