// SPDX-License-Identifier: MIT
//! Handing a message to librdkafka.
//!
//! `rdkafka` makes a C string of the topic and of the name of each header, a dozen for an event,
//! which librdkafka then copies again. Here they are handed over as they are. Everything else, the
//! client, its events and its delivery reports, stays with `rdkafka`.

#![allow(unsafe_code, reason = "its wrapper has no such call")]

use std::ffi::CStr;
use std::mem::ManuallyDrop;
use std::ptr::{self, NonNull};

use rdkafka::ClientContext;
use rdkafka::bindings as sys;
use rdkafka::client::Client;
use rdkafka::types::RDKafkaErrorCode as Code;

/// The headers of a message that is not handed over yet.
#[derive(Debug)]
pub(crate) struct Headers(Option<NonNull<sys::rd_kafka_headers_t>>);

impl Headers {
    /// An empty list with room for so many.
    pub(crate) fn with_room(count: usize) -> Self {
        // SAFETY: takes a number. librdkafka ends the process where it gets no memory, so what comes is a list of our own.
        Self(NonNull::new(unsafe { sys::rd_kafka_headers_new(count) }))
    }

    /// Adds one behind the others. librdkafka copies both.
    pub(crate) fn add(&mut self, name: &str, value: &[u8]) {
        let Some(list) = self.0 else { return };
        // Nothing in memory is as long as the numbers that do not fit.
        let size = |bytes: &[u8]| isize::try_from(bytes.len()).unwrap_or(isize::MAX);
        // SAFETY: the list is ours alone until `produce` takes it; both pointers are read for as many bytes as are said, which
        // the slices have, and are not kept (`rd_kafka_header_add`). With a size a name needs no zero behind it.
        unsafe {
            sys::rd_kafka_header_add(
                list.as_ptr(),
                name.as_ptr().cast(),
                size(name.as_bytes()),
                value.as_ptr().cast(),
                size(value),
            );
        }
    }

    fn as_ptr(&self) -> *mut sys::rd_kafka_headers_t {
        self.0.map_or(ptr::null_mut(), NonNull::as_ptr)
    }
}

impl Drop for Headers {
    fn drop(&mut self) {
        if let Some(list) = self.0 {
            // SAFETY: the list is from `rd_kafka_headers_new`, and whoever gave it away has forgotten this owner of it.
            unsafe { sys::rd_kafka_headers_destroy(list.as_ptr()) };
        }
    }
}

/// What a message consists of.
#[derive(Debug)]
pub(crate) struct Message<'a> {
    pub(crate) topic: &'a CStr,
    pub(crate) key: &'a [u8],
    pub(crate) payload: &'a [u8],
    pub(crate) headers: Headers,
    /// Milliseconds since 1970; zero is now.
    pub(crate) timestamp_ms: i64,
    /// Comes back with the delivery report: the client's context has `usize` as its `DeliveryOpaque`.
    pub(crate) opaque: usize,
}

/// Has the client's producer copy and send a message, to the partition that its key leads to. Never waits.
///
/// # Errors
///
/// Why librdkafka did not take it. There is no report then.
pub(crate) fn produce<C: ClientContext>(
    client: &Client<C>,
    message: Message<'_>,
) -> Result<(), Code> {
    let Message { topic, key, payload, headers, timestamp_ms, opaque } = message;
    let headers = ManuallyDrop::new(headers);
    // SAFETY: the client is alive while it is borrowed. After each tag comes what librdkafka takes for it by `rd_kafka_vtype_t`:
    // a string that ends with a zero; an `int32_t`; an `int`; pointer and size, twice; a pointer that it only hands back; an
    // `int64_t`; a list, or null, which is none. Then the tag that ends them. With `MSG_F_COPY` it keeps neither payload nor key.
    let error = unsafe {
        sys::rd_kafka_producev(
            client.native_ptr(),
            sys::rd_kafka_vtype_t::RD_KAFKA_VTYPE_TOPIC,
            topic.as_ptr(),
            sys::rd_kafka_vtype_t::RD_KAFKA_VTYPE_PARTITION,
            ANY_PARTITION,
            sys::rd_kafka_vtype_t::RD_KAFKA_VTYPE_MSGFLAGS,
            sys::RD_KAFKA_MSG_F_COPY,
            sys::rd_kafka_vtype_t::RD_KAFKA_VTYPE_VALUE,
            payload.as_ptr(),
            payload.len(),
            sys::rd_kafka_vtype_t::RD_KAFKA_VTYPE_KEY,
            key.as_ptr(),
            key.len(),
            sys::rd_kafka_vtype_t::RD_KAFKA_VTYPE_OPAQUE,
            ptr::without_provenance_mut::<u8>(opaque),
            sys::rd_kafka_vtype_t::RD_KAFKA_VTYPE_TIMESTAMP,
            timestamp_ms,
            sys::rd_kafka_vtype_t::RD_KAFKA_VTYPE_HEADERS,
            headers.as_ptr(),
            sys::rd_kafka_vtype_t::RD_KAFKA_VTYPE_END,
        )
    };
    match Code::from(error) {
        // The list is the message's now.
        Code::NoError => Ok(()),
        code => {
            drop(ManuallyDrop::into_inner(headers));
            Err(code)
        }
    }
}

/// `RD_KAFKA_PARTITION_UA`: the key decides.
const ANY_PARTITION: i32 = -1;
