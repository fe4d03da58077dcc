// SPDX-License-Identifier: MIT
//! From an event to what a broker stores: the JSON body, the routing key, the identity.

pub mod json;
pub mod key;
mod outgoing;
mod recent;
mod template;

pub use outgoing::{Form, Outgoing, Stamp};
pub use recent::RecentIds;
