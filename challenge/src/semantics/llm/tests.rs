#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use super::super::Watched;
use super::*;
use crate::remote::Pace;
use crate::remote::testing::{Asked, Reply, Server, Virtual};

const MODEL: &str = "qwen2.5:1.5b-instruct";

fn said(api: Api, text: &str) -> Reply {
    let message = json!({ "role": "assistant", "content": text });
    Reply::ok(match api {
        Api::Ollama => json!({ "message": message, "done": true }).to_string(),
        Api::OpenAi => json!({ "choices": [{ "index": 0, "message": message }] }).to_string(),
    })
}

fn labels() -> Labels {
    Labels::new(["tench", "carp", "crane", "heron"].map(str::to_owned).into())
}

fn judge(api: Api, url: &str, transcripts: Option<&Path>, pace: &Arc<Virtual>) -> Llm {
    let service =
        Service { api, url: url.to_owned(), key: Some("secret".into()), transcripts: transcripts.map(Path::to_owned) };
    Llm::with_client(&service, MODEL, labels(), Client::with_pace(PATIENCE, Reach::Anywhere, pace.clone())).unwrap()
}

fn alone(api: Api, server: &Server) -> Llm {
    judge(api, &server.url(""), None, &Arc::default())
}

#[test]
fn both_interfaces_are_asked_for_a_boolean_by_schema_at_temperature_zero() {
    for api in [Api::Ollama, Api::OpenAi] {
        let server = Server::start(move |asked: &Asked| {
            let body: Value = serde_json::from_str(&asked.body).unwrap();
            assert_eq!(body["model"], MODEL);
            let options = if api == Api::Ollama { &body["options"] } else { &body };
            assert_eq!(options["temperature"], 0);
            assert_eq!(options["seed"], 20_260 + asked.number);
            let (path, schema) = match api {
                Api::Ollama => ("/api/chat", &body["format"]),
                Api::OpenAi => ("/chat/completions", &body["response_format"]["json_schema"]["schema"]),
            };
            assert_eq!((asked.path.as_str(), &schema["properties"]["same"]["type"]), (path, &json!("boolean")));
            assert!(body["messages"][1]["content"].as_str().unwrap().contains("\"tench\""));
            said(api, "{\"same\": true}")
        });
        let llm = alone(api, &server);
        assert_eq!(llm.compare(1, 0), Ok(Meaning::Same));
        assert_eq!(server.requests(), 2, "two votes of the same kind decide");
        assert_eq!(llm.compare(0, 1), Ok(Meaning::Same));
        assert_eq!(server.requests(), 2, "the other way round it is the same question");
        assert_eq!(llm.compare(2, 2), Ok(Meaning::Same));
        assert_eq!(llm.compare(2, 4), Err(SemanticsError::Unknown(4)));
        assert!(!llm.repeatable());
    }
}

#[test]
fn two_of_three_votes_decide_and_an_answer_of_another_form_is_none() {
    let server = Server::start(|asked| {
        said(Api::Ollama, ["{\"same\": true}", "I think so!", "{\"same\": false}"][asked.number % 3])
    });
    let llm = alone(Api::Ollama, &server);
    assert!(matches!(llm.compare(0, 1), Err(SemanticsError::Answer(_))));
    assert_eq!(server.requests(), 3);
    assert!(matches!(llm.compare(1, 0), Err(SemanticsError::Answer(_))));
    assert_eq!(server.requests(), 3, "it would say the same again");
    let server = Server::start(|asked| said(Api::Ollama, &format!("{{\"same\": {}}}", asked.number == 1)));
    assert_eq!(alone(Api::Ollama, &server).compare(0, 1), Ok(Meaning::Different));
    assert_eq!(server.requests(), 3);
    let server = Server::start(|_| Reply::ok(r#"{"choices": [{"message": {"content": null}}]}"#));
    assert!(matches!(alone(Api::OpenAi, &server).compare(0, 1), Err(SemanticsError::Answer(_))));
}

#[test]
fn a_server_that_does_not_speak_the_interface_is_away() {
    for text in ["{\"error\": \"no\"}", "welcome", "{\"choices\": []}", "{\"message\": \"hello\"}"] {
        let server = Server::start(move |_| Reply::ok(text));
        for api in [Api::Ollama, Api::OpenAi] {
            let llm = alone(api, &server);
            for _ in 0..3 {
                assert!(matches!(llm.compare(0, 1), Err(SemanticsError::Away(_))), "{text}");
            }
            let before = server.requests();
            assert!(matches!(llm.compare(0, 1), Err(SemanticsError::Away(_))));
            assert_eq!(server.requests(), before, "it is left alone for a while");
        }
    }
}

#[test]
fn a_server_without_the_model_stays_without_it_however_often_it_is_asked() {
    let server = Server::start(|_| Reply::ok(json!({ "models": [{ "name": "other" }] }).to_string()));
    let llm = alone(Api::Ollama, &server);
    for _ in 0..2 {
        let refused = llm.ready().unwrap_err().to_string();
        assert!(refused.contains("has no model"), "{refused}");
    }
}

#[test]
fn a_model_that_fails_is_no_longer_ready() {
    let up = Arc::new(AtomicBool::new(true));
    let works = up.clone();
    let server = Server::start(move |asked| match (works.load(Ordering::SeqCst), asked.path.as_str()) {
        (false, _) => Reply::status(503),
        (true, "/api/tags") => Reply::ok(json!({ "models": [{ "name": MODEL }] }).to_string()),
        (true, _) => said(Api::Ollama, "{\"same\": false}"),
    });
    let llm = alone(Api::Ollama, &server);
    assert_eq!((llm.ready(), llm.compare(0, 1)), (Ok(()), Ok(Meaning::Different)));
    let before = server.requests();
    assert_eq!((llm.ready(), server.requests()), (Ok(()), before), "it has just voted");
    up.store(false, Ordering::SeqCst);
    assert!(matches!(llm.compare(0, 2), Err(SemanticsError::Away(_))));
    for _ in 0..2 {
        assert!(matches!(llm.ready(), Err(SemanticsError::Away(_))), "what it said before counts no more");
    }
}

#[test]
fn no_vote_is_asked_for_when_time_is_over() {
    let pace = Arc::new(Virtual::default());
    let clock = pace.clone();
    // Each vote takes ten seconds, and says something else than the one before.
    let server = Server::start(move |asked| {
        clock.sleep(Duration::from_secs(10));
        said(Api::Ollama, &format!("{{\"same\": {}}}", asked.number % 2 == 0))
    });
    let llm = judge(Api::Ollama, &server.url(""), None, &pace);
    let until = Until::by(pace.clone(), Duration::from_secs(15));
    let late = llm.compare_until(0, 1, &until).unwrap_err();
    assert!(late.away() && late.to_string().contains("no time"), "{late}");
    assert_eq!(server.requests(), 2);
    let watched = Watched::new(&llm).until(Until::default().unless(|| true));
    assert!(watched.compare(0, 1).is_err());
    assert_eq!(server.requests(), 2, "nor when somebody says stop");
    assert!(watched.into_failure().is_some_and(|e| e.away()));
}

#[test]
fn two_classes_of_one_name_are_different_and_named_apart() {
    let server = Server::start(|asked| {
        assert!(asked.body.contains("crane (class 0)") || asked.body.contains("crane (class 2)"), "{}", asked.body);
        said(Api::Ollama, "{\"same\": true}")
    });
    let service = Service { api: Api::Ollama, url: server.url(""), key: None, transcripts: None };
    let labels = Labels::new(["crane", "heron", "crane"].map(str::to_owned).into());
    let llm = Llm::new(&service, MODEL, labels).unwrap();
    assert_eq!((llm.compare(0, 2), server.requests()), (Ok(Meaning::Different), 0));
    assert_eq!((llm.compare(0, 1), llm.compare(1, 2)), (Ok(Meaning::Same), Ok(Meaning::Same)));
    assert_eq!(server.requests(), 4);
}

#[test]
fn a_key_goes_nowhere_in_the_clear() {
    let service = |url: &str| Service { api: Api::OpenAi, url: url.into(), key: Some("k".into()), transcripts: None };
    assert!(Llm::new(&service("http://example.org/v1"), MODEL, labels()).is_err());
    assert!(Llm::new(&service("https://example.org/v1"), MODEL, labels()).is_ok());
}

#[test]
fn what_was_said_is_kept_and_not_asked_again() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(|_| said(Api::Ollama, "{\"same\": false}"));
    let again = || judge(Api::Ollama, &server.url(""), Some(folder.path()), &Arc::default());
    assert_eq!(again().compare(2, 3), Ok(Meaning::Different));
    assert_eq!(server.requests(), 2);
    assert_eq!(again().compare(3, 2), Ok(Meaning::Different));
    assert_eq!(server.requests(), 2);

    let digest = prompt::digest(MODEL, &prompt::questions("crane", "heron"));
    let path = folder.path().join(&digest.to_string()[..2]).join(format!("{digest}.json"));
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains(&digest.to_string()) && text.contains(MODEL));
    for lie in [text.replace("heron", "stork"), text.replace("false", "perhaps"), "[".to_owned()] {
        std::fs::write(&path, lie).unwrap();
        let before = server.requests();
        assert_eq!(again().compare(2, 3), Ok(Meaning::Different));
        assert_eq!(server.requests(), before + 2, "a transcript that does not fit is none");
    }
}

#[test]
fn a_model_that_is_away_is_an_error_and_left_alone_for_a_while() {
    let up = Arc::new(AtomicBool::new(false));
    let works = up.clone();
    let server = Server::start(move |asked| match (works.load(Ordering::SeqCst), asked.path.as_str()) {
        (false, _) => Reply::status(503),
        (true, "/api/tags") => Reply::ok(json!({ "models": [{ "name": MODEL }] }).to_string()),
        (true, _) => said(Api::Ollama, "{\"same\": false}"),
    });
    let pace = Arc::new(Virtual::default());
    let llm = judge(Api::Ollama, &server.url(""), None, &pace);
    for _ in 0..3 {
        assert!(matches!(llm.compare(0, 1), Err(SemanticsError::Away(_))));
    }
    assert_eq!(server.requests(), 6, "each with a second try");
    assert!(matches!(llm.ready(), Err(SemanticsError::Away(_))));
    assert!(matches!(llm.compare(0, 1), Err(SemanticsError::Away(_))));
    assert_eq!(server.requests(), 6, "the circuit is open");

    up.store(true, Ordering::SeqCst);
    pace.sleep(Duration::from_secs(5));
    assert_eq!(llm.ready(), Ok(()));
    assert_eq!(llm.compare(0, 1), Ok(Meaning::Different));
    let before = server.requests();
    assert_eq!(llm.ready(), Ok(()));
    assert_eq!(server.requests(), before, "it has just answered");
}

#[test]
fn a_server_without_the_model_is_not_ready() {
    let listed = |text: Value| {
        let text = text.to_string();
        Server::start(move |_| Reply::ok(text.clone()))
    };
    let server = listed(json!({ "models": [{ "name": "other:latest" }] }));
    let refused = alone(Api::Ollama, &server).ready().unwrap_err().to_string();
    assert!(refused.contains("has no model"), "{refused}");
    let server = listed(json!({ "data": [{ "id": MODEL }] }));
    assert_eq!(alone(Api::OpenAi, &server).ready(), Ok(()));
    assert!(alone(Api::Ollama, &server).ready().is_err());
}
