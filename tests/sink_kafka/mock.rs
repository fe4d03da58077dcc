// SPDX-License-Identifier: MIT
//! Error codes that brokers give, one by one, from librdkafka's mock cluster.

use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey as Api, RDKafkaRespErr as Err};

use crate::driver::{Driver, Report, config, event};

/// Publishes 200 events while the first requests of a kind fail with `errors`.
fn publish_against(api: Api, errors: &[Err]) -> Report {
    let cluster: MockCluster<'_, DefaultProducerContext> = MockCluster::new(3).unwrap();
    cluster.create_topic("fs.events", 3, 3).unwrap();
    let mut driver = Driver::new(config(&cluster.bootstrap_servers(), "fs.events"));
    cluster.request_errors(api, errors);
    let mut opening = Vec::new();
    while let Err(error) = driver.open() {
        opening.push(error.to_string());
        assert!(opening.len() < 20, "{opening:?}");
    }
    let records: Vec<_> = (0..200).map(|n| event(n, &format!("call-{}", n % 7), 100)).collect();
    let mut report = driver.publish(&records, |_| {});
    report.reopened.splice(0..0, opening);
    driver.close();
    let mut delivered = report.delivered.clone();
    delivered.sort_unstable();
    assert!(delivered.into_iter().eq(0..200), "{api:?} {errors:?}: {report:?}");
    report
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
        for errors in [vec![code], vec![code; 3]] {
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
        let report = publish_against(Api::Produce, &[code]);
        assert!(report.nacked > 0, "{code:?}");
        assert_eq!(report.reopened, [""; 0], "{code:?}");
    }
}

#[test]
fn an_error_that_ends_the_producer_costs_a_new_one_and_no_message() {
    for (api, code) in [
        (Api::Produce, Err::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER),
        (Api::Produce, Err::RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH),
        (Api::Produce, Err::RD_KAFKA_RESP_ERR_INVALID_PRODUCER_ID_MAPPING),
        (Api::Produce, Err::RD_KAFKA_RESP_ERR_PRODUCER_FENCED),
        (Api::InitProducerId, Err::RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH),
        (Api::InitProducerId, Err::RD_KAFKA_RESP_ERR_PRODUCER_FENCED),
    ] {
        let report = publish_against(api, &[code]);
        assert_eq!((report.reopened.len(), report.nacked), (1, 0), "{api:?} {code:?}: {report:?}");
        assert!(report.reopened[0].contains("is built anew"), "{report:?}");
    }
}

#[test]
fn an_error_that_an_operator_must_mend_is_a_refusal_and_costs_no_message() {
    for (api, code, words) in [
        (
            Api::Produce,
            Err::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED,
            "no permission for topic",
        ),
        (Api::Produce, Err::RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED, "authorization failed"),
        (Api::Produce, Err::RD_KAFKA_RESP_ERR_INVALID_REQUIRED_ACKS, "required acks"),
        (Api::Produce, Err::RD_KAFKA_RESP_ERR_UNSUPPORTED_FOR_MESSAGE_FORMAT, "Message format"),
        (Api::InitProducerId, Err::RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED, "authorization"),
    ] {
        let report = publish_against(api, &[code]);
        assert_eq!((report.reopened.len(), report.nacked), (1, 0), "{api:?} {code:?}: {report:?}");
        let line = &report.reopened[0];
        assert!(line.contains("refuses") && line.contains(words), "{line}");
    }
}

#[test]
fn errors_of_metadata_and_of_the_producer_id_are_waited_out() {
    for api in [Api::Metadata, Api::InitProducerId] {
        for code in [
            Err::RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE,
            Err::RD_KAFKA_RESP_ERR_NOT_COORDINATOR,
            Err::RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS,
            Err::RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT,
            Err::RD_KAFKA_RESP_ERR_UNKNOWN,
        ] {
            let report = publish_against(api, &[code; 2]);
            assert_eq!((report.nacked, &report.reopened[..]), (0, &[][..]), "{api:?} {code:?}");
        }
    }
}
