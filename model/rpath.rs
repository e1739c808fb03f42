//! Build script of every package whose binaries link libtorch: records where libtorch lies.
//!
//! `LIBTORCH` may be a link inside the checkout while the target directory lies elsewhere, so the
//! path is made canonical: binaries and tests then run without `LD_LIBRARY_PATH`.

fn main() {
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    println!("cargo:rerun-if-changed={}", file!());
    let Some(root) = std::env::var_os("LIBTORCH") else {
        return; // torch-sys explains a missing libtorch better than a linker could.
    };
    if let Ok(lib) = std::path::Path::new(&root).join("lib").canonicalize() {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{}", lib.display());
    }
}
