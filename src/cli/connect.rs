//! `flm connect`.

use clap::Args;

use super::output::Output;
use super::session::Session;
use crate::types::calls::connect::{Connect, ConnectGuide, Trial};
use crate::types::failure::Outcome;
use crate::types::ids::KeyId;
use crate::types::text::escape;

#[derive(Debug, Args)]
pub(super) struct ConnectArguments {
    /// claude, codex, opencode, open-webui, continue, openai-python, openai-js, anthropic-python, ollama-python or curl
    #[arg(value_name = "CLIENT")]
    client: String,
    /// Whose key it is to use; only its id is known here
    #[arg(long, value_name = "ID", value_parser = KeyId::parse)]
    key: Option<KeyId>,
    /// Which model [default: the first one that chats]
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
    /// Send the request that such a client sends, with a key that dies with this command
    #[arg(long)]
    test: bool,
}

impl ConnectArguments {
    pub(super) async fn run(self, session: &Session) -> Outcome<Output> {
        let named_key = self.key.is_some();
        let call = Connect {
            client: self.client,
            key: self.key,
            model: self.model,
            trial: if self.test { Trial::Sent } else { Trial::None },
        };
        let guide = session.call(call).await?;
        let mut note = String::from(if named_key {
            "Put in the whole key that was shown when it was made: FLM keeps only its hash."
        } else {
            "Put in a key for YOUR_FLM_KEY; make one with: flm api-keys create --label NAME"
        });
        if let Some(trial) = &guide.trial {
            note.push_str(&format!(
                "\n{} answered {} in {:.0} ms ({}); a key made for this test was used, not the client's own",
                trial.request,
                trial.status,
                trial.took_ms,
                escape(trial.request_id.as_deref().unwrap_or("no request id"))
            ));
        }
        Ok(Output::new(&guide, text(&guide)).note(note))
    }
}

fn text(guide: &ConnectGuide) -> String {
    let tried = match &guide.tried {
        Some(version) => format!("tried with version {version}"),
        None => "untested".to_owned(),
    };
    let mut out = format!("{} at {} ({tried})", guide.title, guide.base_url);
    for step in &guide.steps {
        let lines: Vec<_> = step.text.lines().map(escape).collect();
        out.push_str(&format!("\n\n# {}\n{}", step.place, lines.join("\n")));
    }
    out
}
