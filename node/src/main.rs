//! The binary `perturb`.

fn main() -> std::process::ExitCode {
    perturb::main()
}
