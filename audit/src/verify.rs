//! `verify FILE`: a bundle, without any node.

use serde_json::Value;

use crate::bundle::{Bundle, Finding, Known};
use crate::error::{AuditError, Verdict};
use crate::report::{Report, Step};
use crate::{root, round, score};

/// Verifies a bundle's bytes and whether it rests on what the reader knows.
pub fn run(name: &str, bytes: &[u8], known: &Known) -> Report {
    let title = format!("bundle {name}");
    let mut steps = Vec::new();
    match verify(bytes, known, &mut steps) {
        Ok((verdict, result)) => Report::new(verdict, title, steps, result),
        Err(error) => {
            // Whatever is wrong inside a file is the file's fault, not the reader's.
            let verdict = if error.verdict() == Verdict::Usage { Verdict::Invalid } else { error.verdict() };
            Report { verdict, ..Report::failed(title, steps, &error) }
        }
    }
}

fn verify(bytes: &[u8], known: &Known, steps: &mut Vec<Step>) -> Result<(Verdict, Value), AuditError> {
    let bundle = Bundle::from_bytes(bytes)?;
    steps.push(Step::ok(format!("{} bytes, as they were written", bytes.len())));
    let (history, finding) = bundle.verify()?;
    let (found, result, height) = match &finding {
        Finding::Root(checked) => {
            (vec![root::header_step(checked)], root::header_value(checked), checked.header.height)
        }
        Finding::Score { header, epoch, challenge, miner, standing } => {
            let (step, value) = score::show(header, *epoch, *challenge, miner, standing);
            (vec![root::header_step(header), step], value, header.header.height)
        }
        Finding::Round(found) => {
            let (step, value) = round::show(found);
            (vec![step], value, found.top())
        }
    };
    steps.extend(root::trust_steps(&history, height));
    steps.extend(found);
    match bundle.rests_on(known, &history) {
        Ok(()) => Ok((Verdict::Ok, result)),
        Err(error) => {
            steps.push(Step::bad(error.to_string()));
            Ok((error.verdict(), result))
        }
    }
}
