//! Every rule of the security policy with its mode, under the name that it has there: for whoever shows which of them only
//! simulate.

use super::policy::{Mode, RuleName, SecurityPolicy};

impl SecurityPolicy {
    /// All rules, the scoring ones first.
    #[must_use]
    pub fn modes(&self) -> Vec<(&'static str, Mode)> {
        let scoring = RuleName::ALL.into_iter().map(|rule| (rule.as_str(), self.rules.scoring(rule).mode));
        let others = [
            ("failed_authentication", self.failed_authentication.mode),
            ("address_rate", self.address_rate.mode),
            ("address_in_flight", self.address_in_flight.mode),
            ("key_surge", self.key_surge.mode),
            ("resources", self.resources.mode),
        ];
        scoring.chain(others).collect()
    }

    /// Names of the rules that only tell what they would have done.
    #[must_use]
    pub fn simulating(&self) -> Vec<String> {
        self.modes().into_iter().filter(|(_, mode)| *mode == Mode::Simulate).map(|(name, _)| name.to_owned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_that_has_a_mode_is_told_and_those_that_simulate_are_named() {
        let policy = SecurityPolicy::default();
        assert_eq!(policy.simulating(), Vec::<String>::new());
        // As many as there are in the policy itself, wherever they stand.
        let text = serde_json::to_string(&policy).expect("serialises");
        assert_eq!(policy.modes().len(), text.matches("\"mode\"").count());
        let text = text.replace("\"mode\":\"enforce\"", "\"mode\":\"simulate\"");
        let all = SecurityPolicy::parse(&text).expect("a policy");
        assert_eq!(all.simulating().len(), policy.modes().len());
        let one = SecurityPolicy::parse(r#"{"key_surge":{"mode":"simulate"},"rules":{"honeypot":{"mode":"off"}}}"#);
        assert_eq!(one.expect("a policy").simulating(), ["key_surge"]);
    }
}
