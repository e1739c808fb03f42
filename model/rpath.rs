//! Build script of every package whose binaries link libtorch: records where libtorch lies, and that
//! its CUDA part is wanted where it has one.
//!
//! `LIBTORCH` may be a link inside the checkout while the target directory lies elsewhere, so the
//! path is made canonical: binaries and tests then run without `LD_LIBRARY_PATH`.

fn main() {
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    let Some(root) = std::env::var_os("LIBTORCH") else {
        return; // torch-sys explains a missing libtorch better than a linker could.
    };
    let root = std::path::Path::new(&root);
    if let Ok(lib) = root.join("lib").canonicalize() {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{}", lib.display());
        // Nothing of ours names a symbol of it, so the linker would leave it out, and libtorch would
        // find no device.
        if lib.join("libtorch_cuda.so").exists() {
            println!("cargo:rustc-link-arg=-L{}", lib.display());
            println!("cargo:rustc-link-arg=-Wl,--no-as-needed,-ltorch_cuda,--as-needed");
        }
    }
    let version = root.join("build-version");
    if version.exists() {
        println!("cargo:rerun-if-changed={}", version.display());
    }
}
