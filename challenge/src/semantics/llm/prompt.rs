//! What a language model is asked: always the same text for the same two names.

use perturb_types::Digest;
use serde_json::{Value, json};

/// Votes on a question; the majority decides.
pub(super) const VOTES: usize = 3;

/// The seed of the first vote; each further one has the next.
const SEED: u64 = 20_260;

/// Tokens of an answer: `{"same": false}` has six.
pub(super) const MAX_TOKENS: u32 = 32;

const SYSTEM: &str = "You compare the names of image classes. Two names mean the same if a careful person, \
shown a picture of one, could rightly call it by the other: synonyms, or one is a kind of the other. \
Things that merely look alike, belong together or are used together do not mean the same. \
Answer with JSON only: {\"same\": true} or {\"same\": false}.";

/// One vote's question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Question {
    pub(super) system: &'static str,
    pub(super) user: String,
    pub(super) seed: u64,
}

/// The questions of all votes. Temperature is 0, so a vote differs from the others by its seed and by
/// the order of the names: a model that favours whatever is named first contradicts itself.
pub(super) fn questions(a: &str, b: &str) -> [Question; VOTES] {
    std::array::from_fn(|vote| {
        let (first, second) = if vote % 2 == 0 { (a, b) } else { (b, a) };
        // As JSON texts: no name can end its own quotes.
        let user = format!("First: {}\nSecond: {}\nDo they mean the same?", json!(first), json!(second));
        Question { system: SYSTEM, user, seed: SEED + vote as u64 }
    })
}

/// The form of an answer, as JSON schema.
pub(super) fn schema() -> Value {
    json!({
        "type": "object",
        "properties": { "same": { "type": "boolean" } },
        "required": ["same"],
        "additionalProperties": false,
    })
}

/// The digest of all that decides an answer: model, texts, seeds, form.
pub(super) fn digest(model: &str, questions: &[Question]) -> Digest {
    let votes: Vec<Value> = questions.iter().map(|q| json!([q.system, q.user, q.seed])).collect();
    let all = json!(["perturb/meaning/1", model, votes, schema(), { "temperature": 0, "tokens": MAX_TOKENS }]);
    Digest::of(all.to_string().as_bytes())
}

/// Reads an answer; none where it is not of the form.
pub(super) fn read(answer: &str) -> Option<bool> {
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Answer {
        same: bool,
    }
    serde_json::from_str::<Answer>(answer.trim()).ok().map(|a| a.same)
}

/// What most votes say; none without a majority of all.
pub(super) fn majority(answers: &[String]) -> Option<bool> {
    let votes: Vec<bool> = answers.iter().filter_map(|a| read(a)).collect();
    [true, false].into_iter().find(|said| votes.iter().filter(|v| *v == said).count() * 2 > VOTES)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn the_prompt_is_pinned_by_its_digest() {
        let digest = |model, a, b| digest(model, &questions(a, b));
        let one = digest("m", "tench", "goldfish");
        assert_eq!(one, digest("m", "tench", "goldfish"));
        assert!(one != digest("n", "tench", "goldfish") && one != digest("m", "tench", "carp"));
        let q = questions("a \"b\"", "c");
        assert!(q[0].user.starts_with("First: \"a \\\"b\\\"\"\nSecond: \"c\""));
        assert!(q[1].user.starts_with("First: \"c\""));
        assert_eq!([q[0].seed, q[1].seed, q[2].seed], [20_260, 20_261, 20_262]);
    }

    #[test]
    fn only_an_answer_of_the_form_counts() {
        assert_eq!(read(" {\"same\": true}\n"), Some(true));
        for bad in ["yes", "{\"same\": 1}", "{\"same\": true, \"x\": 1}", "{\"same\": true} really", "", "{}"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn two_of_three_decide_and_one_does_not() {
        let said = |votes: &[&str]| majority(&votes.iter().map(|v| format!("{{\"same\":{v}}}")).collect::<Vec<_>>());
        assert_eq!(said(&["true", "true"]), Some(true));
        assert_eq!(said(&["true", "false", "false"]), Some(false));
        assert_eq!(said(&["true", "maybe", "false"]), None);
        assert_eq!(said(&["true"]), None);
    }
}
