//! The two interfaces that language models are served by.
//!
//! | | asked | answer in |
//! |---|---|---|
//! | Ollama | `POST BASE/api/chat`, the schema as `format` | `message.content` |
//! | OpenAI-compatible | `POST BASE/chat/completions`, the schema as `response_format` | `choices[0].message.content` |
//!
//! Whether the server is there and has the model: `GET BASE/api/tags`, or `GET BASE/models`.

use serde_json::{Value, json};

use super::prompt::{MAX_TOKENS, Question, schema};
use crate::remote::cut;

/// An interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Api {
    /// Ollama's own.
    Ollama,
    /// OpenAI's chat completions, as many servers have them; the base usually ends in `/v1`.
    OpenAi,
}

impl Api {
    /// The interface of a name: `ollama` or `openai`.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        match name {
            "ollama" => Some(Self::Ollama),
            "openai" => Some(Self::OpenAi),
            _ => None,
        }
    }

    pub(super) const fn chat(self) -> &'static str {
        match self {
            Self::Ollama => "/api/chat",
            Self::OpenAi => "/chat/completions",
        }
    }

    pub(super) const fn models(self) -> &'static str {
        match self {
            Self::Ollama => "/api/tags",
            Self::OpenAi => "/models",
        }
    }

    /// The request for one vote.
    pub(super) fn request(self, model: &str, question: &Question) -> String {
        let messages = json!([
            { "role": "system", "content": question.system },
            { "role": "user", "content": question.user },
        ]);
        let request = match self {
            Self::Ollama => json!({
                "model": model,
                "messages": messages,
                "stream": false,
                "format": schema(),
                "options": { "temperature": 0, "seed": question.seed, "num_predict": MAX_TOKENS },
            }),
            Self::OpenAi => json!({
                "model": model,
                "messages": messages,
                "stream": false,
                "temperature": 0,
                "seed": question.seed,
                "max_tokens": MAX_TOKENS,
                "response_format": {
                    "type": "json_schema",
                    "json_schema": { "name": "meaning", "strict": true, "schema": schema() },
                },
            }),
        };
        request.to_string()
    }

    /// The text in a response: empty where there is a message without one, as of a model that says nothing
    /// to these names.
    ///
    /// # Errors
    /// No message: it is no answer of this interface.
    pub(super) fn content(self, response: &[u8]) -> Result<String, String> {
        let value: Value = serde_json::from_slice(response).map_err(|e| format!("no JSON: {}", cut(e)))?;
        let at = match self {
            Self::Ollama => "/message",
            Self::OpenAi => "/choices/0/message",
        };
        let message = value.pointer(at).and_then(Value::as_object).ok_or_else(|| format!("no message at {at}"))?;
        Ok(message.get("content").and_then(Value::as_str).unwrap_or_default().to_owned())
    }

    /// Whether a list of models has one; `name` stands for `name:latest` with Ollama.
    pub(super) fn lists(self, response: &[u8], model: &str) -> Result<bool, String> {
        let value: Value = serde_json::from_slice(response).map_err(|e| format!("no JSON: {}", cut(e)))?;
        let (list, field) = match self {
            Self::Ollama => ("models", "name"),
            Self::OpenAi => ("data", "id"),
        };
        let list = value.get(list).and_then(Value::as_array).ok_or_else(|| format!("no list `{list}`"))?;
        let mut names = list.iter().filter_map(|m| m.get(field)?.as_str());
        let latest = format!("{model}:latest");
        Ok(names.any(|n| n == model || (self == Self::Ollama && n == latest)))
    }
}
