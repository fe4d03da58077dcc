// SPDX-License-Identifier: MIT
//! Configuration as the core parsed it.

use std::ffi::{CStr, c_char};
use std::marker::PhantomData;
use std::path::Path;
use std::ptr::{self, NonNull};

use super::SwitchError;
use super::text::{self, c_string};
use crate::ffi;

/// A parsed document. Holds the core's reference to it until dropped.
#[derive(Debug)]
pub struct Document {
    root: NonNull<ffi::switch_xml>,
    node: NonNull<ffi::switch_xml>,
}

/// A tag of a document.
#[derive(Clone, Copy, Debug)]
pub struct Node<'d> {
    xml: NonNull<ffi::switch_xml>,
    _document: PhantomData<&'d Document>,
}

impl Document {
    /// The configuration of this name, wherever the core finds it: the static file, or a module
    /// that serves configurations.
    pub fn open_configuration(name: &CStr) -> Option<Self> {
        let mut node = ptr::null_mut();
        // SAFETY: the core reads the name and writes `node` before it returns. What it returns
        // holds a reference to the tree until `switch_xml_free`.
        let root =
            unsafe { ffi::switch_xml_open_cfg(name.as_ptr(), &raw mut node, ptr::null_mut()) };
        let root = NonNull::new(root)?;
        let mut document = Self { root, node: root };
        // Without the tag there is still a reference to give back, which dropping does.
        document.node = NonNull::new(node)?;
        Some(document)
    }

    /// Has the core read its configuration files anew, as `reloadxml` does.
    ///
    /// # Errors
    ///
    /// With the core's words, when the files do not parse: it then keeps what it had.
    pub fn reload() -> Result<(), SwitchError> {
        let mut words: *const c_char = ptr::null();
        // SAFETY: the core writes `words` before it returns: null or a buffer of its own.
        let status = unsafe { ffi::switch_xml_reload(&raw mut words) };
        if status == ffi::switch_status_t::SWITCH_STATUS_SUCCESS {
            return Ok(());
        }
        // SAFETY: as above; copied at once.
        let words = unsafe { text::lossy(words) }.unwrap_or_default();
        Err(SwitchError::Configuration(format!("the XML configuration does not parse: {words}")))
    }

    /// The document in the file at `path`, preprocessed as the core does it.
    pub fn open_file(path: &Path) -> Option<Self> {
        let path = c_string(&path.to_string_lossy());
        // SAFETY: the core reads the path; what it returns is ours until `switch_xml_free`.
        let root = NonNull::new(unsafe { ffi::switch_xml_parse_file(path.as_ptr()) })?;
        Some(Self { root, node: root })
    }

    /// The tag that was asked for.
    pub fn root(&self) -> Node<'_> {
        Node { xml: self.node, _document: PhantomData }
    }
}

impl Drop for Document {
    fn drop(&mut self) {
        // SAFETY: the reference that opening took, given back once; no `Node` outlives `self`.
        unsafe { ffi::switch_xml_free(self.root.as_ptr()) };
    }
}

impl<'d> Node<'d> {
    fn raw(self) -> &'d ffi::switch_xml {
        // SAFETY: a tag of a tree that the document holds, and that nobody changes: the core
        // replaces trees as a whole.
        unsafe { self.xml.as_ref() }
    }

    /// The tag's name.
    pub fn name(self) -> String {
        // SAFETY: null or a C string of the tree.
        unsafe { text::lossy(self.raw().name) }.unwrap_or_default()
    }

    /// Its attributes, in order.
    pub fn attributes(self) -> Vec<(String, String)> {
        let mut attributes = Vec::new();
        let mut at = self.raw().attr;
        while let (Some(name), rest) = next_text(at) {
            let (value, rest) = next_text(rest);
            attributes.push((name, value.unwrap_or_default()));
            at = rest;
        }
        attributes
    }

    /// Its tags, in the order of the document.
    pub fn children(self) -> impl Iterator<Item = Node<'d>> {
        let first = NonNull::new(self.raw().child);
        let node = |xml| Node { xml, _document: PhantomData };
        // `child` heads the list in document order that `ordered` continues (switch_xml.h).
        std::iter::successors(first.map(node), move |child: &Node<'d>| {
            NonNull::new(child.raw().ordered).map(node)
        })
    }
}

/// The string at `at` in a list that a null pointer ends, and the place behind it.
fn next_text(at: *mut *mut c_char) -> (Option<String>, *mut *mut c_char) {
    if at.is_null() {
        return (None, at);
    }
    // SAFETY: `attr` is a list of C strings with a null at its end (switch_xml.h), and the caller
    // stops there.
    let value = unsafe { at.read() };
    if value.is_null() {
        return (None, at);
    }
    // SAFETY: not the end yet, so there is a next one.
    let rest = unsafe { at.add(1) };
    // SAFETY: a C string of the tree.
    (unsafe { text::lossy(value) }, rest)
}
