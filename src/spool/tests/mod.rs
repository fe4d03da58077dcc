// SPDX-License-Identifier: MIT
//! Tests of the spool: over the real file system where that is what is tested, and over one in
//! memory that fails calls and loses power where it must.

mod basics;
mod damage;
mod disk;
mod faults;
mod model;
mod power;
mod rig;
mod sim;
mod trouble;
