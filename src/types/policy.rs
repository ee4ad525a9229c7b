//! The security policy: every rule of SPEC §5 with its mode and its thresholds, as one value.
//!
//! Stored as the row `default` of `security_policies`, set with `flm security policy set`, swapped as one. A value of
//! these types cannot be wrong: each number carries its range, and what depends on more than one number is checked as
//! it is read. An absent field has its default, so a file may name only what it changes.

use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

/// What a rule does when it is met (SPEC §5, head).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// It is not looked at.
    Off,
    /// It is looked at, and what it would have done is recorded.
    Simulate,
    /// It acts.
    Enforce,
}

/// A whole number within a range, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Whole<const LEAST: u32, const MOST: u32>(u32);

impl<const LEAST: u32, const MOST: u32> Whole<LEAST, MOST> {
    /// For constants of this file: a number outside the range does not compile when it is used as one.
    const fn of(value: u32) -> Self {
        assert!(value >= LEAST && value <= MOST);
        Self(value)
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl<const LEAST: u32, const MOST: u32> fmt::Display for Whole<LEAST, MOST> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<'de, const LEAST: u32, const MOST: u32> Deserialize<'de> for Whole<LEAST, MOST> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = u64::deserialize(deserializer)?;
        match u32::try_from(value) {
            Ok(value) if (LEAST..=MOST).contains(&value) => Ok(Self(value)),
            _ => Err(serde::de::Error::custom(format!("{value} is not between {LEAST} and {MOST}"))),
        }
    }
}

impl<const LEAST: u32, const MOST: u32> JsonSchema for Whole<LEAST, MOST> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        format!("whole number from {LEAST} to {MOST}").into()
    }

    fn json_schema(_generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "integer", "minimum": LEAST, "maximum": MOST })
    }
}

/// A rule that scores an address. The name stands in the policy, in audit rows and in the console.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RuleName {
    /// SQL in path, query or headers (SPEC §5.4).
    SqlInjection,
    /// A path that climbs out of its folder, or names a file of the system (SPEC §5.4).
    PathTraversal,
    /// Script, shell or template code in path, query or headers.
    CodeInjection,
    /// A user agent that names a scanner (SPEC §5.4).
    ScannerAgent,
    /// No user agent (SPEC §5.4).
    MissingAgent,
    /// A method that no client of this API uses (SPEC §5.4).
    UnusualMethod,
    /// Many requests for routes that do not exist (SPEC §5.4).
    ManyNotFound,
    /// More requests in a second or a minute than a client sends (SPEC §5.5).
    RequestBurst,
    /// A body that announces more than the limit (SPEC §5.5).
    OversizedBody,
    /// A head that is held open past its limit (SPEC §5.5).
    HeldOpen,
    /// The same unknown endpoint again and again (SPEC §5.5).
    UnknownEndpoint,
    /// The same body again and again (SPEC §5.5).
    RepeatedBody,
    /// A path that only attackers ask for (SPEC §5.6).
    Honeypot,
}

impl RuleName {
    /// Every rule.
    pub const ALL: [Self; 13] = [
        Self::SqlInjection,
        Self::PathTraversal,
        Self::CodeInjection,
        Self::ScannerAgent,
        Self::MissingAgent,
        Self::UnusualMethod,
        Self::ManyNotFound,
        Self::RequestBurst,
        Self::OversizedBody,
        Self::HeldOpen,
        Self::UnknownEndpoint,
        Self::RepeatedBody,
        Self::Honeypot,
    ];

    /// Its name as it is written in the policy.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SqlInjection => "sql_injection",
            Self::PathTraversal => "path_traversal",
            Self::CodeInjection => "code_injection",
            Self::ScannerAgent => "scanner_agent",
            Self::MissingAgent => "missing_agent",
            Self::UnusualMethod => "unusual_method",
            Self::ManyNotFound => "many_not_found",
            Self::RequestBurst => "request_burst",
            Self::OversizedBody => "oversized_body",
            Self::HeldOpen => "held_open",
            Self::UnknownEndpoint => "unknown_endpoint",
            Self::RepeatedBody => "repeated_body",
            Self::Honeypot => "honeypot",
        }
    }

    /// Whether it scores requests with a valid key too: traversal, SQL injection and scanners only (SPEC §5.4).
    #[must_use]
    pub const fn holds_for_keys(self) -> bool {
        matches!(self, Self::SqlInjection | Self::PathTraversal | Self::ScannerAgent)
    }
}

impl fmt::Display for RuleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Everything that an operator may decide about the guard.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SecurityPolicy {
    /// Blocking addresses that present wrong keys (SPEC §5.3).
    pub failed_authentication: FailedAuthentication,
    /// Rules that score addresses (SPEC §5.4 to §5.6).
    pub rules: Rules,
    /// What scores lead to (SPEC §5.4).
    pub score: ScoreLadder,
    /// More paths that only attackers ask for (SPEC §5.6); each begins with `/`, and holds for what is below it.
    pub honeypot_paths: Vec<HoneypotPath>,
    /// Requests of one address, keys or not (SPEC §5.7).
    pub address_rate: AddressRate,
    /// Requests of one address that may run at once (SPEC §4.2).
    pub address_in_flight: AddressInFlight,
    /// Keys that are suddenly used far more than before.
    pub key_surge: KeySurge,
    /// Protection of the machine (SPEC §5.8).
    pub resources: Resources,
}

/// Blocking addresses that present wrong keys (SPEC §5.3).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct FailedAuthentication {
    /// What is done.
    pub mode: Mode,
    /// Hours that a failure counts.
    pub window_hours: Whole<1, 720>,
    /// Minutes within which the same wrong key of one address counts once.
    pub same_key_minutes: Whole<0, 1440>,
    /// Steps; an IPv6 /48 has them at four times the number.
    pub steps: FailureSteps,
}

/// Steps of the ladder: at so many failures, blocked for so long. Each wants more failures than the one before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "Vec<FailureStep>")]
pub struct FailureSteps(Vec<FailureStep>);

/// One step of the ladder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FailureStep {
    /// Failures that lead to it.
    pub failures: Whole<1, 1000>,
    /// Minutes of the block; `null` is until it is lifted by hand (24 h for private, loopback and the operator's own
    /// addresses).
    pub block_minutes: Option<Whole<1, 525_600>>,
}

impl FailureSteps {
    /// The steps, rising.
    #[must_use]
    pub fn as_slice(&self) -> &[FailureStep] {
        &self.0
    }

    /// The most failures that matter.
    #[must_use]
    pub fn highest(&self) -> u32 {
        self.0.last().map_or(0, |step| step.failures.get())
    }
}

impl TryFrom<Vec<FailureStep>> for FailureSteps {
    type Error = &'static str;

    fn try_from(steps: Vec<FailureStep>) -> Result<Self, Self::Error> {
        match steps.len() {
            0 => Err("there must be at least one step; to block nobody, set the mode to off"),
            1..=8 if steps.is_sorted_by(|one, next| one.failures < next.failures) => Ok(Self(steps)),
            1..=8 => Err("each step must want more failures than the one before"),
            _ => Err("there may be at most 8 steps"),
        }
    }
}

impl Default for FailedAuthentication {
    fn default() -> Self {
        let step = |failures, block_minutes| FailureStep { failures, block_minutes };
        Self {
            mode: Mode::Enforce,
            window_hours: Whole::of(24),
            same_key_minutes: Whole::of(10),
            steps: FailureSteps(vec![
                step(Whole::of(5), Some(Whole::of(30))),
                step(Whole::of(10), Some(Whole::of(24 * 60))),
                step(Whole::of(20), None),
            ]),
        }
    }
}

/// A rule that scores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RulePolicy {
    /// What is done.
    pub mode: Mode,
    /// Points of one hit.
    pub points: Whole<0, 1000>,
    /// Hits that count in one minute for one address.
    pub per_minute: Whole<1, 60>,
}

/// A rule that scores when something was counted often enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CountingPolicy {
    /// What is done.
    pub mode: Mode,
    /// Points of one hit.
    pub points: Whole<0, 1000>,
    /// Hits that count in one minute for one address.
    pub per_minute: Whole<1, 60>,
    /// How often it must happen within a minute to be a hit.
    pub times: Whole<1, 100_000>,
}

/// The rule about bursts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BurstPolicy {
    /// What is done.
    pub mode: Mode,
    /// Points of one hit.
    pub points: Whole<0, 1000>,
    /// Hits that count in one minute for one address.
    pub per_minute: Whole<1, 60>,
    /// Requests within one second that are a hit.
    pub in_second: Whole<1, 1_000_000>,
    /// Requests within one minute that are a hit.
    pub in_minute: Whole<1, 1_000_000>,
}

/// Every rule that scores.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Rules {
    /// SQL in path, query or headers.
    pub sql_injection: RulePolicy,
    /// A path that climbs out of its folder, or names a file of the system.
    pub path_traversal: RulePolicy,
    /// Script, shell or template code in path, query or headers.
    pub code_injection: RulePolicy,
    /// A user agent that names a scanner.
    pub scanner_agent: RulePolicy,
    /// No user agent.
    pub missing_agent: RulePolicy,
    /// A method that no client of this API uses.
    pub unusual_method: RulePolicy,
    /// Many requests for routes that do not exist.
    pub many_not_found: CountingPolicy,
    /// More requests in a second or a minute than a client sends.
    pub request_burst: BurstPolicy,
    /// A body that announces more than the limit.
    pub oversized_body: RulePolicy,
    /// A head that is held open past its limit.
    pub held_open: RulePolicy,
    /// The same unknown endpoint again and again.
    pub unknown_endpoint: CountingPolicy,
    /// The same body again and again.
    pub repeated_body: CountingPolicy,
    /// A path that only attackers ask for.
    pub honeypot: RulePolicy,
}

impl Default for Rules {
    fn default() -> Self {
        // Points of SPEC §5.4 to §5.6; each adds at most five times a minute, missing agent and unusual method once.
        let rule = |points, per_minute| RulePolicy { mode: Mode::Enforce, points, per_minute };
        let counting = |points, per_minute, times| CountingPolicy { mode: Mode::Enforce, points, per_minute, times };
        let five = Whole::of(5);
        let once = Whole::of(1);
        Self {
            sql_injection: rule(Whole::of(20), five),
            path_traversal: rule(Whole::of(20), five),
            // Not in SPEC §5.4: as much as a scanner's name.
            code_injection: rule(Whole::of(10), five),
            scanner_agent: rule(Whole::of(10), five),
            missing_agent: rule(Whole::of(5), once),
            unusual_method: rule(Whole::of(10), once),
            many_not_found: counting(Whole::of(15), five, Whole::of(10)),
            request_burst: BurstPolicy {
                mode: Mode::Enforce,
                points: Whole::of(30),
                per_minute: five,
                in_second: Whole::of(100),
                in_minute: Whole::of(1000),
            },
            oversized_body: rule(Whole::of(20), five),
            held_open: rule(Whole::of(15), five),
            // SPEC §5.5 names no numbers for the last two: five of the same path, and more of the same body than a
            // client library retries in a minute.
            unknown_endpoint: counting(Whole::of(10), five, Whole::of(5)),
            repeated_body: counting(Whole::of(10), five, Whole::of(20)),
            honeypot: rule(Whole::of(10), five),
        }
    }
}

/// What a rule comes to, whatever its shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scoring {
    /// What is done.
    pub mode: Mode,
    /// Points of one hit.
    pub points: u32,
    /// Hits that count in one minute for one address.
    pub per_minute: u32,
}

impl Rules {
    /// Mode, points and cap of a rule.
    #[must_use]
    pub fn scoring(&self, rule: RuleName) -> Scoring {
        let plain = |rule: &RulePolicy| (rule.mode, rule.points, rule.per_minute);
        let counting = |rule: &CountingPolicy| (rule.mode, rule.points, rule.per_minute);
        let (mode, points, per_minute) = match rule {
            RuleName::SqlInjection => plain(&self.sql_injection),
            RuleName::PathTraversal => plain(&self.path_traversal),
            RuleName::CodeInjection => plain(&self.code_injection),
            RuleName::ScannerAgent => plain(&self.scanner_agent),
            RuleName::MissingAgent => plain(&self.missing_agent),
            RuleName::UnusualMethod => plain(&self.unusual_method),
            RuleName::ManyNotFound => counting(&self.many_not_found),
            RuleName::RequestBurst => {
                let burst = &self.request_burst;
                (burst.mode, burst.points, burst.per_minute)
            }
            RuleName::OversizedBody => plain(&self.oversized_body),
            RuleName::HeldOpen => plain(&self.held_open),
            RuleName::UnknownEndpoint => counting(&self.unknown_endpoint),
            RuleName::RepeatedBody => counting(&self.repeated_body),
            RuleName::Honeypot => plain(&self.honeypot),
        };
        Scoring { mode, points: points.get(), per_minute: per_minute.get() }
    }

    /// Puts a rule in a mode; points and counts stay.
    pub fn put(&mut self, rule: RuleName, mode: Mode) {
        *match rule {
            RuleName::SqlInjection => &mut self.sql_injection.mode,
            RuleName::PathTraversal => &mut self.path_traversal.mode,
            RuleName::CodeInjection => &mut self.code_injection.mode,
            RuleName::ScannerAgent => &mut self.scanner_agent.mode,
            RuleName::MissingAgent => &mut self.missing_agent.mode,
            RuleName::UnusualMethod => &mut self.unusual_method.mode,
            RuleName::ManyNotFound => &mut self.many_not_found.mode,
            RuleName::RequestBurst => &mut self.request_burst.mode,
            RuleName::OversizedBody => &mut self.oversized_body.mode,
            RuleName::HeldOpen => &mut self.held_open.mode,
            RuleName::UnknownEndpoint => &mut self.unknown_endpoint.mode,
            RuleName::RepeatedBody => &mut self.repeated_body.mode,
            RuleName::Honeypot => &mut self.honeypot.mode,
        } = mode;
    }

    /// The same with every rule in one mode; points and counts stay.
    #[must_use]
    pub fn all_in(mut self, mode: Mode) -> Self {
        for rule in RuleName::ALL {
            self.put(rule, mode);
        }
        self
    }
}

/// What scores lead to: warn, block, block for longer (SPEC §5.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, try_from = "ScoreLadderText")]
pub struct ScoreLadder {
    /// Minutes after which a score is halved.
    pub half_life_minutes: Whole<1, 1440>,
    /// Score that is a warning.
    pub warn_at: Whole<1, 100_000>,
    /// Score that blocks.
    pub block_at: Whole<1, 100_000>,
    /// Minutes of that block.
    pub block_minutes: Whole<1, 525_600>,
    /// Score that blocks for longer.
    pub long_block_at: Whole<1, 100_000>,
    /// Minutes of that block.
    pub long_block_minutes: Whole<1, 525_600>,
}

/// [`ScoreLadder`] before its steps are compared.
#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct ScoreLadderText {
    half_life_minutes: Whole<1, 1440>,
    warn_at: Whole<1, 100_000>,
    block_at: Whole<1, 100_000>,
    block_minutes: Whole<1, 525_600>,
    long_block_at: Whole<1, 100_000>,
    long_block_minutes: Whole<1, 525_600>,
}

impl Default for ScoreLadderText {
    fn default() -> Self {
        let ladder = ScoreLadder::default();
        Self {
            half_life_minutes: ladder.half_life_minutes,
            warn_at: ladder.warn_at,
            block_at: ladder.block_at,
            block_minutes: ladder.block_minutes,
            long_block_at: ladder.long_block_at,
            long_block_minutes: ladder.long_block_minutes,
        }
    }
}

impl TryFrom<ScoreLadderText> for ScoreLadder {
    type Error = &'static str;

    fn try_from(text: ScoreLadderText) -> Result<Self, Self::Error> {
        if text.warn_at > text.block_at || text.block_at > text.long_block_at {
            return Err("warn_at, block_at and long_block_at must rise in that order");
        }
        Ok(Self {
            half_life_minutes: text.half_life_minutes,
            warn_at: text.warn_at,
            block_at: text.block_at,
            block_minutes: text.block_minutes,
            long_block_at: text.long_block_at,
            long_block_minutes: text.long_block_minutes,
        })
    }
}

impl Default for ScoreLadder {
    fn default() -> Self {
        Self {
            half_life_minutes: Whole::of(10),
            warn_at: Whole::of(50),
            block_at: Whole::of(100),
            block_minutes: Whole::of(60),
            long_block_at: Whole::of(200),
            long_block_minutes: Whole::of(24 * 60),
        }
    }
}

/// A path that only attackers ask for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
pub struct HoneypotPath(String);

/// Longest path of a honeypot in bytes: more is no path that somebody guesses.
const HONEYPOT_LENGTH: usize = 200;

impl HoneypotPath {
    /// The path.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for HoneypotPath {
    type Error = &'static str;

    fn try_from(path: String) -> Result<Self, Self::Error> {
        let real = ["/v1", "/api", "/engine", "/health", "/metrics", "/robots.txt", "/favicon.ico"];
        let holds = |own: &&str| path == **own || (!["/v1", "/api"].contains(own) && path.starts_with(*own));
        if !path.starts_with('/') || path.len() < 2 {
            Err("a honeypot's path begins with / and has a name after it")
        } else if path.len() > HONEYPOT_LENGTH || path.chars().any(|c| c.is_control() || c == '?' || c == '#') {
            Err("a honeypot's path has at most 200 characters and neither ?, # nor control characters")
        } else if real.iter().any(holds) || path.starts_with("/v1/") {
            Err("this path is one of the proxy's own: real clients would be scored for it")
        } else {
            Ok(Self(path))
        }
    }
}

impl From<HoneypotPath> for String {
    fn from(path: HoneypotPath) -> Self {
        path.0
    }
}

/// Requests of one address, keys or not (SPEC §5.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AddressRate {
    /// What is done.
    pub mode: Mode,
    /// Requests in a minute.
    pub per_minute: Whole<1, 1_000_000>,
    /// Requests that may come at once.
    pub burst: Whole<1, 1_000_000>,
}

impl Default for AddressRate {
    fn default() -> Self {
        // SPEC §5.7 gives the rate; a burst of a fifth lets a page of parallel calls pass.
        Self { mode: Mode::Enforce, per_minute: Whole::of(1000), burst: Whole::of(200) }
    }
}

/// Requests of one address that may run at once (SPEC §4.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AddressInFlight {
    /// What is done.
    pub mode: Mode,
    /// How many.
    pub most: Whole<1, 1_000_000>,
}

impl Default for AddressInFlight {
    fn default() -> Self {
        // As many as an address may have connections (SPEC §5.8).
        Self { mode: Mode::Enforce, most: Whole::of(256) }
    }
}

/// A key that goes on for minutes at many times its usual rate, as one does that leaked: told once, nothing is blocked
/// (SECURITY.md, case 21).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct KeySurge {
    /// What is done.
    pub mode: Mode,
    /// How many times its median rate of the last seven days.
    pub times: Whole<2, 1000>,
    /// For how many minutes, each of them.
    pub minutes: Whole<1, 60>,
    /// Requests a minute below which nothing is unusual.
    pub least_per_minute: Whole<1, 1_000_000>,
}

impl Default for KeySurge {
    fn default() -> Self {
        // Half a request a second for minutes is more than a person at a keyboard makes, however seldom the key was used.
        Self { mode: Mode::Enforce, times: Whole::of(10), minutes: Whole::of(5), least_per_minute: Whole::of(30) }
    }
}

/// Protection of the machine (SPEC §5.8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Resources {
    /// What is done.
    pub mode: Mode,
    /// Share of FLM's own cores that is too much, in percent.
    pub cpu_percent: Whole<10, 100>,
    /// For so many seconds.
    pub cpu_seconds: Whole<1, 600>,
    /// Free memory that is too little, in MB; the larger of this and the share counts.
    pub memory_megabytes: Whole<16, 1_048_576>,
    /// Free memory that is too little, in percent of all.
    pub memory_percent: Whole<0, 50>,
    /// For so many seconds.
    pub memory_seconds: Whole<1, 600>,
}

impl Default for Resources {
    fn default() -> Self {
        Self {
            mode: Mode::Enforce,
            cpu_percent: Whole::of(90),
            cpu_seconds: Whole::of(10),
            memory_megabytes: Whole::of(256),
            memory_percent: Whole::of(3),
            memory_seconds: Whole::of(5),
        }
    }
}

/// Why a policy is refused, with the field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct PolicyFault {
    /// Where, such as `rules.sql_injection.points`; `policy` for the whole.
    pub field: String,
    /// What is wrong there.
    pub reason: String,
}

impl SecurityPolicy {
    /// Reads a policy as JSON.
    ///
    /// # Errors
    /// The first field that is wrong, and why.
    pub fn parse(text: &str) -> Result<Self, PolicyFault> {
        let whole = |reason: String| PolicyFault { field: "policy".into(), reason };
        let told: Value = serde_json::from_str(text).map_err(|error| whole(error.to_string()))?;
        // What is not told has its default, at every depth: `{"rules":{"honeypot":{"mode":"off"}}}` is a policy.
        let mut all = serde_json::to_value(Self::default()).map_err(|error| whole(error.to_string()))?;
        lay_over(&mut all, told);
        let policy = serde_path_to_error::deserialize(all).map_err(|error| {
            let field = match error.path().to_string() {
                path if path == "." => "policy".to_owned(),
                path => path,
            };
            PolicyFault { field, reason: error.into_inner().to_string() }
        })?;
        Ok(policy)
    }

    /// The JSON schema that describes it (JSON Schema, draft 2020-12).
    #[must_use]
    pub fn schema() -> Value {
        schemars::schema_for!(Self).to_value()
    }
}

/// Puts what `over` names in the place of what `under` has; lists are taken whole.
fn lay_over(under: &mut Value, over: Value) {
    match (under, over) {
        (Value::Object(under), Value::Object(over)) => {
            for (name, value) in over {
                lay_over(under.entry(name).or_insert(Value::Null), value);
            }
        }
        (under, over) => *under = over,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_what_the_specification_says_and_reads_back() {
        let policy = SecurityPolicy::default();
        let text = serde_json::to_string(&policy).expect("serialises");
        assert_eq!(SecurityPolicy::parse(&text), Ok(policy.clone()));
        assert_eq!(SecurityPolicy::parse("{}"), Ok(policy.clone()));
        let quiet = SecurityPolicy::parse(r#"{"rules":{"honeypot":{"mode":"off"}}}"#).expect("a policy");
        assert_eq!(quiet.rules.scoring(RuleName::Honeypot), Scoring { mode: Mode::Off, points: 10, per_minute: 5 });
        for (rule, points, per_minute) in [
            (RuleName::SqlInjection, 20, 5),
            (RuleName::PathTraversal, 20, 5),
            (RuleName::ScannerAgent, 10, 5),
            (RuleName::MissingAgent, 5, 1),
            (RuleName::UnusualMethod, 10, 1),
            (RuleName::ManyNotFound, 15, 5),
            (RuleName::RequestBurst, 30, 5),
            (RuleName::OversizedBody, 20, 5),
            (RuleName::HeldOpen, 15, 5),
            (RuleName::UnknownEndpoint, 10, 5),
            (RuleName::RepeatedBody, 10, 5),
            (RuleName::Honeypot, 10, 5),
        ] {
            assert_eq!(policy.rules.scoring(rule), Scoring { mode: Mode::Enforce, points, per_minute }, "{rule}");
        }
    }

    #[test]
    fn every_rule_is_put_in_one_mode_and_keeps_its_points() {
        let before = Rules::default();
        let after = before.clone().all_in(Mode::Simulate);
        for rule in RuleName::ALL {
            assert_eq!(after.scoring(rule), Scoring { mode: Mode::Simulate, ..before.scoring(rule) }, "{rule}");
        }
    }

    #[test]
    fn what_is_wrong_is_named_with_its_field() {
        for (text, field, reason) in [
            (
                r#"{"rules":{"sql_injection":{"mode":"on","points":1,"per_minute":1}}}"#,
                "rules.sql_injection.mode",
                "simulate",
            ),
            (
                r#"{"rules":{"honeypot":{"mode":"off","points":2000,"per_minute":1}}}"#,
                "rules.honeypot.points",
                "between 0 and 1000",
            ),
            (r#"{"rules":{"sqli":{}}}"#, "rules.sqli", "unknown field"),
            (r#"{"failed_authentication":{"steps":[]}}"#, "failed_authentication.steps", "at least one step"),
            (
                r#"{"failed_authentication":{"steps":[{"failures":5,"block_minutes":1},{"failures":5,"block_minutes":null}]}}"#,
                "failed_authentication.steps",
                "more failures",
            ),
            (r#"{"score":{"block_at":10}}"#, "score", "must rise"),
            (r#"{"honeypot_paths":["/ok","/v1/models"]}"#, "honeypot_paths[1]", "proxy's own"),
            (r#"{"honeypot_paths":["admin"]}"#, "honeypot_paths[0]", "begins with /"),
            (r#"{"resources":{"cpu_percent":"90"}}"#, "resources.cpu_percent", "invalid type"),
            ("[", "policy", "EOF"),
            ("{} {}", "policy", "trailing"),
            ("7", "policy", "expected struct"),
        ] {
            let fault = SecurityPolicy::parse(text).expect_err(text);
            assert_eq!(fault.field, field, "{text}: {fault}");
            assert!(fault.reason.contains(reason), "{text}: {fault}");
        }
    }

    #[test]
    fn the_schema_knows_every_rule_and_every_range() {
        let schema = SecurityPolicy::schema().to_string();
        for rule in RuleName::ALL {
            assert!(schema.contains(&format!("\"{rule}\"")), "{rule}");
            assert_eq!(serde_json::to_value(rule).expect("a name"), rule.as_str());
        }
        assert!(schema.contains("\"maximum\":525600"), "{schema}");
    }
}
