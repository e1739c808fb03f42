//! A blocking JSON-RPC client: one POST a question, nothing kept between them.

use std::time::Duration;

use perturb_ledger::serve::{PRUNED, PrunedAt};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::{AuditError, shown};
use crate::source::Source;

/// Bytes of a body that are read: the largest answer, with room for what surrounds it.
const MAX_BODY_BYTES: u64 = perturb_ledger::serve::MAX_ANSWER_BYTES as u64 + 64 * 1024;

/// A node reached by HTTP.
#[derive(Clone, Debug)]
pub struct Http {
    url: String,
    agent: ureq::Agent,
}

#[derive(Deserialize)]
struct Response {
    id: Value,
    #[serde(default)]
    result: Value,
    error: Option<Fault>,
}

#[derive(Deserialize)]
struct Fault {
    code: i64,
    message: String,
    /// Only that of what was pruned is read; another shape is none.
    #[serde(default, deserialize_with = "pruned_at")]
    data: Option<PrunedAt>,
}

fn pruned_at<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<PrunedAt>, D::Error> {
    Ok(serde_json::from_value(Value::deserialize(from)?).ok())
}

impl Http {
    /// A client for one URL; every request ends within `timeout`.
    ///
    /// # Errors
    /// The URL is none of http or https.
    pub fn new(url: &str, timeout: Duration) -> Result<Self, AuditError> {
        if !url.starts_with("http://") && !url.starts_with("https://") {
            return Err(AuditError::Usage(format!("`{url}` is no URL of http or https")));
        }
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(timeout))
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .build();
        Ok(Self { url: url.to_owned(), agent: config.into() })
    }

    fn unavailable(&self, why: impl ToString) -> AuditError {
        AuditError::Unavailable { node: self.url.clone(), why: shown(&why.to_string()) }
    }
}

impl Source for Http {
    fn name(&self) -> &str {
        &self.url
    }

    fn call(&self, method: &str, params: Value) -> Result<Value, AuditError> {
        let request = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let sent = self.agent.post(&self.url).content_type("application/json").send(request.to_string());
        let mut response = sent.map_err(|e| self.unavailable(e))?;
        if response.status() != 200 {
            return Err(self.unavailable(format!("HTTP status {}", response.status().as_u16())));
        }
        let body = response.body_mut().with_config().limit(MAX_BODY_BYTES).read_to_vec();
        let body = body.map_err(|e| self.unavailable(e))?;
        let answer: Response =
            serde_json::from_slice(&body).map_err(|e| self.unavailable(format!("no JSON-RPC answer: {e}")))?;
        if answer.id != json!(1) {
            return Err(self.unavailable("an answer to another request"));
        }
        match answer.error {
            Some(Fault { code, data: Some(PrunedAt { oldest }), .. }) if code == i64::from(PRUNED) => {
                Err(AuditError::Pruned { node: shown(&self.url), what: method.into(), oldest })
            }
            Some(fault) => Err(self.unavailable(format!("{method}: error {}: {}", fault.code, fault.message))),
            None => Ok(answer.result),
        }
    }
}
