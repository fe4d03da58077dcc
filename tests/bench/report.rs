// SPDX-License-Identifier: MIT
//! Makes `docs/performance.md` and its plots from the results.

pub fn write() {}
