//! `perturb-simulate`: a network in virtual time.

fn main() -> std::process::ExitCode {
    perturb_simulator::cli::main()
}
