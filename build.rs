// SPDX-License-Identifier: MIT
//! Finds FreeSWITCH's headers, binds them, compiles the shim and says how to link. Nothing else.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::redundant_closure_for_method_calls,
    reason = "a build that cannot go on says why and stops"
)]

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-check-cfg=cfg(loom)");
    // The library stays mapped after dlclose: thread-locals, atexit handlers and the threads of
    // client libraries make unmapping unsafe (see docs/decisions.md).
    println!("cargo:rustc-link-arg-cdylib=-Wl,-z,nodelete");
    // Nothing of ours or of a bundled C library may be found by another module.
    println!("cargo:rustc-link-arg-cdylib=-Wl,--exclude-libs,ALL");
    #[cfg(feature = "switch")]
    switch::bind();
}

#[cfg(feature = "switch")]
mod switch {
    use std::env;
    use std::fs;
    use std::path::{Path, PathBuf};

    /// Where the headers come from, and what must be on the include path for them.
    struct Headers {
        said: String,
        dirs: Vec<PathBuf>,
    }

    /// Everything the module calls or reads. What is not named here stays unknown to it.
    const FUNCTIONS: &[&str] = &[
        "switch_channel_get_variable_dup",
        "switch_channel_set_variable_var_check",
        "switch_console_add_complete_func",
        "switch_console_del_complete_func",
        "switch_console_push_match",
        "switch_console_set_complete",
        "switch_core_get_hostname",
        "switch_core_get_switchname",
        "switch_core_get_uuid",
        "switch_core_session_get_channel",
        "switch_event_add_header_string",
        "switch_event_bind_removable",
        "switch_event_create_subclass_detailed",
        "switch_event_destroy",
        "switch_event_fire_detailed",
        "switch_event_get_header_idx",
        "switch_event_name",
        "switch_event_unbind",
        "switch_loadable_module_create_interface",
        "switch_loadable_module_create_module_interface",
        "switch_loadable_module_get_api_interface",
        "switch_loadable_module_get_application_interface",
        "switch_log_printf",
        "switch_name_event",
        "switch_version_full",
        "switch_xml_free",
        "switch_xml_open_cfg",
        "switch_xml_parse_file",
        "switch_xml_reload",
        "rustbridge_release_.*",
    ];

    const TYPES: &[&str] = &[
        "switch_event",
        "switch_event_header",
        "switch_xml",
        "switch_loadable_module_function_table",
        "switch_loadable_module_function_table_t",
        "switch_api_interface",
        "switch_application_interface",
        "switch_stream_handle",
        "switch_status_t",
        "switch_log_level_t",
        "switch_event_types_t",
        "switch_module_interface_name_t",
        "switch_application_flag_enum_t",
        "switch_stack_t",
        "switch_text_channel_t",
    ];

    const VARS: &[&str] = &["SWITCH_GLOBAL_dirs", "RUSTBRIDGE_.*"];

    pub(super) fn bind() {
        for name in ["FREESWITCH_INCLUDE_DIR", "FREESWITCH_PREFIX", "PKG_CONFIG_PATH"] {
            println!("cargo:rerun-if-env-changed={name}");
        }
        for file in ["wrapper.h", "shim.h", "shim.c"] {
            println!("cargo:rerun-if-changed=include/{file}");
        }
        let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
        let headers = find(&out);
        // One line, so that a build log always tells what the library was built against.
        println!("cargo:warning=FreeSWITCH headers: {}", headers.said);
        println!("cargo:rustc-env=RUSTBRIDGE_HEADERS={}", headers.said);

        let mut builder = bindgen::Builder::default()
            .header("include/wrapper.h")
            .header("include/shim.h")
            .clang_args(headers.dirs.iter().map(|dir| format!("-I{}", dir.display())))
            .default_enum_style(bindgen::EnumVariation::NewType {
                is_bitfield: false,
                is_global: false,
            })
            // Never looked into: its size varies with the platform's APR.
            .opaque_type("switch_core_session")
            .opaque_type("switch_channel")
            .opaque_type("apr_.*")
            .layout_tests(true)
            .derive_debug(false)
            .generate_comments(false)
            .rust_edition(bindgen::RustEdition::Edition2024)
            .wrap_unsafe_ops(true);
        builder = FUNCTIONS.iter().fold(builder, |b, name| b.allowlist_function(name));
        builder = TYPES.iter().fold(builder, |b, name| b.allowlist_type(name));
        builder = VARS.iter().fold(builder, |b, name| b.allowlist_var(name));
        let bindings = builder.generate().unwrap_or_else(|error| {
            panic!(
                "bindgen cannot read FreeSWITCH's headers ({}): {error}. \
                 It needs libclang (Debian: libclang-dev); set FREESWITCH_INCLUDE_DIR to the \
                 folder that holds switch.h to take other headers.",
                headers.said
            )
        });
        bindings.write_to_file(out.join("bindings.rs")).expect("OUT_DIR can be written");

        let mut shim = cc::Build::new();
        shim.file("include/shim.c").includes(&headers.dirs).warnings(false);
        shim.compile("rustbridge_shim");
    }

    /// `FREESWITCH_INCLUDE_DIR`, then pkg-config, then the headers packaged in `fswtch-src`.
    fn find(out: &Path) -> Headers {
        if let Some(dir) = env::var_os("FREESWITCH_INCLUDE_DIR") {
            let dir = PathBuf::from(dir);
            assert!(
                dir.join("switch.h").is_file(),
                "FREESWITCH_INCLUDE_DIR is {}, which holds no switch.h",
                dir.display()
            );
            let said = format!("{} (FREESWITCH_INCLUDE_DIR)", dir.display());
            return Headers { said, dirs: vec![dir] };
        }
        if let Ok(found) =
            pkg_config::Config::new().cargo_metadata(false).env_metadata(true).probe("freeswitch")
        {
            let said = format!("FreeSWITCH {} (pkg-config)", found.version);
            return Headers { said, dirs: found.include_paths };
        }
        let mut dirs = fswtch_src::include_dirs();
        fs::write(out.join("switch_am_config.h"), AM_CONFIG).expect("OUT_DIR can be written");
        dirs.push(out.to_path_buf());
        Headers { said: "packaged in the crate fswtch-src".into(), dirs }
    }

    /// What FreeSWITCH's configure writes on a 64-bit Unix; the packaged headers come without it.
    const AM_CONFIG: &str = "\
#ifndef SWITCH_AM_CONFIG_H
#define SWITCH_AM_CONFIG_H
#define SWITCH_INT_16  short
#define SWITCH_INT_32  int
#define SWITCH_INT_64  long
#define SWITCH_SIZE_T  size_t
#define SWITCH_SSIZE_T ssize_t
#define SWITCH_SIZEOF_VOIDP 8
#define SWITCH_PREFIX_DIR \"/usr/local/freeswitch\"
#define SWITCH_SSIZE_T_FMT \"ld\"
#define SWITCH_SIZE_T_FMT \"ld\"
#define SWITCH_INT64_T_FMT \"ld\"
#define SWITCH_UINT64_T_FMT \"lu\"
#endif
";
}
