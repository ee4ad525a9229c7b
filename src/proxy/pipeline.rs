//! A request's way through the proxy, one line per stage of SPEC §4.2, top to bottom.
//!
//! Called by `connection` for every request. The order never changes; the types of `exchange` enforce it. Ways that few requests
//! take are boxed: every other request would carry their states along.

use std::sync::Arc;

use http::Request;
use http::request::Parts;
use hyper::body::Incoming;

use super::answer::AnswerBody;
use super::exchange::{Answer, Exchange, Peer};
use super::refusal::Refusal;
use super::route::Endpoint;
use super::rules::Sender;
use super::{
    authenticate, body, budget, cors, count_tokens, door, finish, media, metrics_page, model_list, ollama_api, open,
    pace, passthrough, relay, resolve, route, rules, sanity, screen,
};
use crate::wire::client::ClientDialect;

/// Serves one request. Dropping the future notes that the client went away and drops the engine's work.
pub(super) async fn serve(peer: Arc<Peer>, request: Request<Incoming>) -> http::Response<AnswerBody> {
    let (parts, incoming) = request.into_parts();
    let parts = Box::new(parts);
    let mut exchange = Exchange::open(peer, &parts);
    match answer(&mut exchange, parts, incoming).await {
        Ok(answer) if !exchange.is_trapped() => finish::answered(exchange, answer),
        Err(refusal) if exchange.sender() == Sender::KeyHolder => finish::refused(exchange, &refusal),
        refused => {
            let turn = pace::turn(&mut exchange);
            // Recorded before it waits: a client that leaves meanwhile was refused all the same.
            let response = match refused {
                Ok(trap) => finish::answered(exchange, trap),
                Err(refusal) => finish::refused(exchange, &refusal),
            };
            match turn {
                Some(turn) => Box::pin(turn.wait(response)).await,
                None => response,
            }
        }
    }
}

async fn answer(exchange: &mut Exchange, parts: Box<Parts>, incoming: Incoming) -> Result<Answer, Refusal> {
    if let Some(challenge) = door::challenge(exchange, &parts) {
        return Ok(challenge);
    }
    let accepted = screen::lists(exchange, parts)?;
    if let Some(trap) = rules::look(exchange, &accepted) {
        return Ok(trap);
    }
    let accepted = screen::rate(exchange, accepted)?;
    let screened = sanity::check(exchange, accepted)?;
    if let Some(way) = door::signpost(exchange, &screened) {
        return way;
    }
    if let Some(preflight) = cors::preflight(exchange, &screened) {
        return Ok(preflight);
    }
    if let Some(public) = open::answer(exchange, &screened) {
        return Ok(public);
    }
    let screened = screen::overload(exchange, screened)?;
    let authenticated = match authenticate::check(exchange, &screened).await {
        Ok(known) => known.with(screened),
        Err(refusal) => {
            Box::pin(rules::refused_body(exchange, &screened, incoming)).await;
            return Err(refusal);
        }
    };
    let authenticated = authenticate::key_rate(exchange, authenticated)?;
    let routed = route::find(exchange, authenticated)?;
    let inference = match &routed.endpoint {
        Endpoint::Models => return Ok(model_list::all(exchange, &routed)),
        Endpoint::Model(name) => return model_list::one(exchange, &routed, name),
        Endpoint::Metrics => return Ok(metrics_page::answer(exchange)),
        Endpoint::OllamaTags => return Ok(ollama_api::tags(exchange, &routed)),
        Endpoint::OllamaPs => return Ok(ollama_api::ps(exchange, &routed)),
        Endpoint::OllamaShow => return Box::pin(ollama_api::show(exchange, &routed, incoming)).await,
        Endpoint::OllamaVersion => return Ok(ollama_api::version()),
        Endpoint::Own(call) => {
            return Box::pin(passthrough::answer(exchange, &routed.key, call.clone(), incoming)).await;
        }
        Endpoint::Inference(inference) => *inference,
    };
    let parsed = body::read(exchange, routed, inference, incoming).await?;
    let resolved = resolve::model(exchange, parsed)?;
    if inference.dialect == ClientDialect::CountTokens {
        let resolved = media::fetch(exchange, resolved).await?;
        return Box::pin(count_tokens::answer(exchange, resolved)).await;
    }
    let resolved = budget::reserve(exchange, resolved)?;
    let resolved = media::fetch(exchange, resolved).await?;
    relay::answer(exchange, resolved).await
}
