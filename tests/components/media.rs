//! Ranks from a real llama.cpp server, and the unmodified OpenAI client's own forms, through FLM.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};

use serde_json::{Value, json};

use crate::home::{PATIENCE, wait_until};
use crate::llama_server::LlamaServer;
use crate::{CHAT_MODEL, EMBEDDING_MODEL, Stage};

/// What the server answers to a POST without FLM in between.
fn directly(port: u16, path: &str, body: &Value) -> Value {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("connects");
    let body = body.to_string();
    let head = format!(
        "POST {path} HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).expect("writes");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("reads");
    let (_head, body) = answer.split_once("\r\n\r\n").expect("a body");
    serde_json::from_str(body).expect("JSON")
}

#[test]
#[ignore = "needs llama.cpp and the OpenAI client: run scripts/install-test-components.sh"]
fn documents_are_ranked_as_llama_cpp_ranks_them_directly() {
    let stage = Stage::new(CHAT_MODEL);
    let ranks = LlamaServer::start(EMBEDDING_MODEL, &["-c", "1024", "--reranking"]);
    stage.home.add_engine("llamacpp", "rank", ranks.port);
    wait_until("the ranking model is listed", PATIENCE, || {
        stage.step("models")["ids"].to_string().contains(&format!("rank/{EMBEDDING_MODEL}"))
    });
    let ranked = stage.step("rerank");
    let asked = json!({"model": "x", "query": "hello", "documents": ["word", "hello there", "one two"]});
    let direct = directly(ranks.port, "/v1/rerank", &asked);
    assert_eq!(ranked["results"], direct["results"]);
    assert_eq!(ranked["usage"], direct["usage"]);
    let row = stage.row(&ranked["request_id"]);
    assert_eq!((&row["engine"], &row["route"]), (&json!("rank"), &json!("rerank")));
    assert_eq!(row["tokens"]["prompt"], direct["usage"]["prompt_tokens"]);
    // The other server was started without.
    let refused = stage.step("rerank_without");
    assert_eq!((&refused["status"], &refused["code"]), (&json!(501), &json!("not_implemented")), "{refused}");
    assert!(refused["message"].as_str().is_some_and(|text| text.contains("--reranking")), "{refused}");
}

#[test]
#[ignore = "needs llama.cpp and the OpenAI client: run scripts/install-test-components.sh"]
fn the_clients_own_forms_are_read_and_what_the_model_cannot_is_told() {
    let stage = Stage::new(CHAT_MODEL);
    let told = stage.step("media_refused");
    let seen = told["seen"].as_array().expect("a list");
    assert_eq!(seen.len(), 6, "{told}");
    for refusal in seen {
        // A form that was not read would be a 400.
        assert_eq!(refusal["class"], "UnprocessableEntityError", "{told}");
        assert_eq!(
            (&refusal["code"], &refusal["param"]),
            (&json!("unsupported_modalities"), &json!("model")),
            "{told}"
        );
    }
    assert_eq!(
        stage.step("wrong_audio"),
        json!({"class": "APIStatusError", "status": 415, "code": "unsupported_media_type", "param": "file"})
    );
}
