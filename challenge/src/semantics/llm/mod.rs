//! Meaning by a language model, over Ollama's interface or OpenAI's.
//!
//! A question is asked three times at temperature 0 with fixed seeds, the names in both orders; an
//! answer counts if it is of the form `{"same": true|false}`, and two of three decide. What was said is
//! kept with the digest of what was asked, and never asked again. The question about (a, b) is the one
//! about (b, a).
//!
//! A request has a time limit and a second try; after three failures in a row nobody is asked for a
//! while. A server that answers in another form than its interface's has failed, too. **While the model is
//! away** every question without a kept answer is [`SemanticsError::Away`]: no challenge is issued
//! ([`Semantics::ready`]), and a round's result waits. Votes without a majority are
//! [`SemanticsError::Answer`]: the model would say the same again. Neither is ever a verdict.
//!
//! Two classes of one name are different, and nobody is asked: a classifier that has both tells them
//! apart. In other questions each is named with what lies beside it ([`Labels::told`]).
//!
//! Two servers may answer differently, so verdicts are not [`Semantics::repeatable`]: the record holds
//! them, and aggregation over validators bounds what one of them can do.

mod api;
mod prompt;
mod transcripts;

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use perturb_types::round::Meaning;

pub use self::api::Api;
use self::transcripts::{Transcript, Transcripts};
use super::labels::Labels;
use super::{Semantics, SemanticsError};
use crate::pace::Until;
use crate::remote::{Breaker, Client, ClientError, Patience, Reach, base, cut};

/// What a vote may cost: a small model on a CPU answers within seconds, loading it takes longer.
const PATIENCE: Patience = Patience { timeout: Duration::from_secs(60), tries: 2, pause: Duration::from_secs(1) };

/// What a list of models may cost: a server that is there has it at hand.
const PATIENCE_FOR_LIST: Patience =
    Patience { timeout: Duration::from_secs(5), tries: 2, pause: Duration::from_millis(500) };

/// Bytes of a response: a list of models, or an answer with its statistics.
const MAX_RESPONSE: u64 = 1 << 20;

/// Characters of an answer that are kept.
const MAX_ANSWER: usize = 1024;

/// How long the model counts as there after it was listed, or gave a vote that counts; unless something
/// failed meanwhile.
const FRESH: Duration = Duration::from_secs(30);

/// Pairs held in memory; more are read from their transcripts again.
const MAX_PAIRS: usize = 1 << 16;

/// Where and how a language model is asked.
#[derive(Clone, PartialEq, Eq)]
pub struct Service {
    /// The interface.
    pub api: Api,
    /// Its base address, `http://127.0.0.1:11434` or `https://HOST/v1`.
    pub url: String,
    /// The key that it asks for.
    pub key: Option<String>,
    /// The folder for transcripts.
    pub transcripts: Option<PathBuf>,
}

/// Without the key.
impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service").field("api", &self.api).field("url", &self.url).finish_non_exhaustive()
    }
}

/// The judge.
#[derive(Debug)]
pub struct Llm {
    api: Api,
    base: String,
    model: String,
    labels: Labels,
    client: Client,
    breaker: Breaker,
    transcripts: Transcripts,
    /// None where the votes made no majority.
    known: Mutex<HashMap<(u16, u16), Option<Meaning>>>,
    last_good: Mutex<Option<Duration>>,
}

impl Llm {
    /// A judge who asks `model` about the classes that `labels` names. Nothing is asked yet.
    ///
    /// # Errors
    /// The address is none of http or https, or the key would go there in the clear.
    pub fn new(service: &Service, model: &str, labels: Labels) -> Result<Self, ClientError> {
        // The operator named the server.
        Self::with_client(service, model, labels, Client::new(PATIENCE, Reach::Anywhere))
    }

    fn with_client(service: &Service, model: &str, labels: Labels, client: Client) -> Result<Self, ClientError> {
        let base = base(&service.url)?.to_owned();
        Ok(Self {
            api: service.api,
            client: client.with_bearer(&base, service.key.clone())?,
            base,
            model: model.to_owned(),
            labels,
            breaker: Breaker::default(),
            transcripts: Transcripts::new(service.transcripts.clone()),
            known: Mutex::default(),
            last_good: Mutex::default(),
        })
    }

    /// One request, past the breaker; what cannot be read is a failure of the server's, too.
    fn ask<T>(&self, until: &Until, ask: impl FnOnce() -> Result<T, String>) -> Result<T, SemanticsError> {
        if until.over() {
            return Err(SemanticsError::Away("no time is left to ask".into()));
        }
        let pace = self.client.pace();
        self.breaker.permit(pace.now()).map_err(|wait| {
            SemanticsError::Away(format!("{} failed several times; asked again in {} s", self.base, wait.as_secs() + 1))
        })?;
        let got = ask();
        self.breaker.record(pace.now(), got.is_ok());
        if got.is_err() {
            self.is_there(false);
        }
        got.map_err(SemanticsError::Away)
    }

    /// Remembers that the model has just proved to be there, or not.
    fn is_there(&self, good: bool) {
        let now = good.then(|| self.client.pace().now());
        *self.last_good.lock().unwrap_or_else(PoisonError::into_inner) = now;
    }

    fn votes(&self, first: &str, second: &str, until: &Until) -> Result<bool, SemanticsError> {
        let questions = prompt::questions(first, second);
        let prompt = prompt::digest(&self.model, &questions);
        if let Some(same) = self.transcripts.verdict(&prompt) {
            return Ok(same);
        }
        let url = format!("{}{}", self.base, self.api.chat());
        let mut answers = Vec::new();
        for question in &questions {
            let request = self.api.request(&self.model, question);
            let answer = self.ask(until, || {
                let response = self.client.post(&url, &request, MAX_RESPONSE, until).map_err(|e| e.to_string())?;
                self.api.content(&response).map_err(|why| format!("{url}: {why}"))
            })?;
            self.is_there(prompt::read(&answer).is_some());
            answers.push(answer.chars().take(MAX_ANSWER).collect::<String>());
            if let Some(same) = prompt::majority(&answers) {
                let (first, second) = (first.to_owned(), second.to_owned());
                let transcript = Transcript { prompt, model: self.model.clone(), first, second, answers };
                // What cannot be kept is asked again.
                let _ = self.transcripts.keep(&transcript);
                return Ok(same);
            }
        }
        let answers = cut(format_args!("{answers:?}"));
        Err(SemanticsError::Answer(format!("no majority about {first:?} and {second:?} in {answers}")))
    }

    fn name_of(&self, class: u16) -> Result<&str, SemanticsError> {
        self.labels.told(class).ok_or(SemanticsError::Unknown(class))
    }
}

impl Semantics for Llm {
    fn name(&self) -> &str {
        "llm"
    }

    fn compare(&self, clean: u16, new: u16) -> Result<Meaning, SemanticsError> {
        self.compare_until(clean, new, &Until::default())
    }

    fn compare_until(&self, clean: u16, new: u16, until: &Until) -> Result<Meaning, SemanticsError> {
        let pair = (clean.min(new), clean.max(new));
        let (first, second) = (self.name_of(pair.0)?, self.name_of(pair.1)?);
        if clean == new {
            return Ok(Meaning::Same);
        }
        if self.labels.one_name(clean, new) {
            return Ok(Meaning::Different);
        }
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&pair).copied();
        if let Some(known) = known {
            let none = || SemanticsError::Answer(format!("no majority about {first:?} and {second:?} before"));
            return known.ok_or_else(none);
        }
        let said = self.votes(first, second, until).map(|same| if same { Meaning::Same } else { Meaning::Different });
        if !said.as_ref().is_err_and(|e| e.away()) {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            if known.len() >= MAX_PAIRS {
                known.clear();
            }
            known.insert(pair, said.as_ref().ok().copied());
        }
        said
    }

    fn repeatable(&self) -> bool {
        false
    }

    fn ready(&self) -> Result<(), SemanticsError> {
        let last = *self.last_good.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_some_and(|last| self.client.pace().now().saturating_sub(last) < FRESH) {
            return Ok(());
        }
        let url = format!("{}{}", self.base, self.api.models());
        let client = self.client.clone().with_patience(PATIENCE_FOR_LIST);
        let until = Until::default();
        self.ask(&until, || {
            let response = client.get(&url, MAX_RESPONSE, &until).map_err(|e| e.to_string())?;
            match self.api.lists(&response, &self.model) {
                Ok(true) => Ok(()),
                Ok(false) => Err(format!("{} has no model `{}`", self.base, self.model)),
                Err(why) => Err(format!("{url}: {why}")),
            }
        })?;
        self.is_there(true);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
