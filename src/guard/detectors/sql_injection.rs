//! SQL in path, query or headers (SPEC §5.4): conditions that are always true, `UNION SELECT`, statements after `;`,
//! functions that wait or tell, comments that cut a statement off; operators of document stores and filters of
//! directories too.
//!
//! A shape needs what prose lacks: literals on both sides of a comparison, a list where a list must stand, a call. Words
//! alone ("select a model from the list, or drop a table") are no evidence.

use super::head::{Piece, Place};
use super::sql_token::{Landing, Token, tokens};
use super::sql_words::{CATALOGUES, INNER, OPERATORS, OUTER, TELLING};

/// The first shape that a piece holds.
pub(super) fn look(piece: &Piece<'_>) -> Option<&'static str> {
    if matches!(piece.place, Place::Header(name) if name == http::header::CONTENT_TYPE) {
        return None;
    }
    if piece.name.contains("[$") || OPERATORS.iter().any(|operator| piece.name.ends_with(&format!("[{operator}]"))) {
        return Some("query operator");
    }
    piece.views.each().find_map(in_text)
}

fn in_text(text: &str) -> Option<&'static str> {
    if let Some(shape) = query_operator(text).or_else(|| directory_filter(text)) {
        return Some(shape);
    }
    let landings = [Landing::Bare, Landing::Quoted(b'\''), Landing::Quoted(b'"')];
    let found = landings.into_iter().find_map(|landing| Statement::of(text, landing)?.shape());
    // `un/**/ion` is one word where comments are taken out before the statement is built.
    found.or_else(|| {
        let joined = without_comments(text)?;
        landings.into_iter().find_map(|landing| Statement::of(&joined, landing)?.shape())
    })
}

fn without_comments(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("/*") {
        let end = rest[start + 2..].find("*/")?;
        out.push_str(&rest[..start]);
        rest = &rest[start + 2 + end + 2..];
    }
    out.push_str(rest);
    (out.len() < text.len()).then_some(out)
}

fn query_operator(text: &str) -> Option<&'static str> {
    let compact: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    let operator = OPERATORS.iter().any(|operator| {
        compact.match_indices(operator).any(|(at, _)| {
            let before = compact[..at].chars().next_back();
            let after = compact[at + operator.len()..].chars().next();
            matches!(before, Some('"' | '\'' | '[' | '{' | ',')) && matches!(after, Some('"' | '\'' | ']' | ':'))
        })
    });
    let code =
        compact.contains("this.password") || compact.contains("';returntrue") || compact.contains("';returnthis");
    (operator || code).then_some("query operator")
}

/// LDAP filters that are closed and opened anew (RFC 4515).
fn directory_filter(text: &str) -> Option<&'static str> {
    let compact: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    let filters = [")(|(", ")(&", "*)(", "*))", ")(cn=", ")(uid=", ")(objectclass=", "(|(", "(&(", "(!("];
    let attribute = compact.match_indices('(').any(|(at, _)| {
        let rest = &compact[at + 1..];
        let name = rest.chars().take_while(char::is_ascii_alphanumeric).count();
        name > 0 && rest[name..].starts_with('=') && !rest[name + 1..].starts_with('=')
    });
    (filters.iter().any(|filter| compact.contains(filter))
        && (attribute || compact.contains("*)") || compact.contains(")(&)")))
    .then_some("directory filter")
}

/// A text as part of a statement.
struct Statement<'a> {
    tokens: Vec<Token<'a>>,
    quoted: bool,
}

/// What stands on one side of a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operand<'a> {
    /// A number, a string, `null`, `true`, a variable.
    Literal,
    Name(&'a str),
    Call,
    Group,
}

impl<'a> Statement<'a> {
    fn of(text: &'a str, landing: Landing) -> Option<Self> {
        Some(Self { tokens: tokens(text, landing)?, quoted: landing != Landing::Bare })
    }

    fn word(&self, at: usize) -> Option<&'a str> {
        match self.tokens.get(at) {
            Some(Token::Word(word)) => Some(word),
            _ => None,
        }
    }

    fn is_word(&self, at: usize, words: &[&str]) -> bool {
        self.word(at).is_some_and(|word| words.contains(&word))
    }

    fn is_sign(&self, at: usize, signs: &[&str]) -> bool {
        matches!(self.tokens.get(at), Some(Token::Sign(sign)) if signs.contains(sign))
    }

    /// Whether the statement ends here, or is cut off.
    fn ends(&self, at: usize) -> bool {
        matches!(self.tokens.get(at), None | Some(Token::Comment(_))) || self.is_sign(at, &[";"])
    }

    fn is_cut(&self, at: usize) -> bool {
        matches!(self.tokens.get(at), Some(Token::Comment(_)))
    }

    /// Whether the text begins as a value that a statement had begun before it.
    fn continues_a_value(&self) -> bool {
        self.quoted || matches!(self.tokens.first(), Some(Token::Number)) || self.is_sign(0, &[")", "-", "(", ";"])
    }

    fn shape(&self) -> Option<&'static str> {
        (0..self.tokens.len())
            .find_map(|at| {
                self.union(at)
                    .or_else(|| self.condition(at))
                    .or_else(|| self.call(at))
                    .or_else(|| self.selection(at))
                    .or_else(|| self.stacked(at))
                    .or_else(|| self.clause(at))
            })
            .or_else(|| self.cut_off())
    }

    /// The operand that begins at `at`, and what follows it.
    fn operand(&self, mut at: usize) -> Option<(Operand<'a>, usize)> {
        while self.is_sign(at, &["-", "+", "~", "!"]) || self.is_word(at, &["not", "binary", "distinct", "all"]) {
            at += 1;
        }
        let (mut operand, mut next) = match self.tokens.get(at)? {
            Token::Number | Token::Text(_) | Token::Variable(_) => (Operand::Literal, at + 1),
            Token::Word(_) if self.is_sign(at + 1, &["("]) => (Operand::Call, self.closing(at + 1)),
            Token::Word("null" | "true" | "false" | "unknown" | "current_user" | "session_user") => {
                (Operand::Literal, at + 1)
            }
            // A string with a mark: `n'x'`, `x'41'`, `_utf8'x'`.
            Token::Word(_) if matches!(self.tokens.get(at + 1), Some(Token::Text(_))) => (Operand::Literal, at + 2),
            Token::Word(word) => (Operand::Name(word), at + 1),
            Token::Sign("(") => (Operand::Group, self.closing(at)),
            _ => return None,
        };
        loop {
            if self.is_sign(next, &["."]) && self.word(next + 1).is_some() {
                let call = self.is_sign(next + 2, &["("]);
                operand = if call { Operand::Call } else { operand };
                next = if call { self.closing(next + 2) } else { next + 2 };
            } else if self.is_sign(next, &["+", "-", "*", "/", "%", "^", "||", "|", "&", "::"])
                && let Some((other, after)) = self.term(next + 1)
            {
                // `1*1` is a literal, `1-sleep(5)` a call.
                if other == Operand::Call || operand == Operand::Call {
                    operand = Operand::Call;
                }
                next = after;
            } else {
                return Some((operand, next));
            }
        }
    }

    /// An operand without operators after it.
    fn term(&self, at: usize) -> Option<(Operand<'a>, usize)> {
        match self.tokens.get(at)? {
            Token::Number | Token::Text(_) | Token::Variable(_) => Some((Operand::Literal, at + 1)),
            Token::Word(_) if self.is_sign(at + 1, &["("]) => Some((Operand::Call, self.closing(at + 1))),
            Token::Word(word) => Some((Operand::Name(word), at + 1)),
            Token::Sign("(") => Some((Operand::Group, self.closing(at))),
            _ => None,
        }
    }

    /// Behind the bracket that closes the one at `at`, or the end.
    fn closing(&self, at: usize) -> usize {
        let mut depth = 0;
        for (index, token) in self.tokens.iter().enumerate().skip(at) {
            match token {
                Token::Sign("(") => depth += 1,
                Token::Sign(")") => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                return index + 1;
            }
        }
        self.tokens.len()
    }

    /// `union [all] select` with something that can be selected.
    fn union(&self, at: usize) -> Option<&'static str> {
        if !self.is_word(at, &["union", "intersect", "except", "minus"]) {
            return None;
        }
        let mut next = at + 1;
        while self.is_word(next, &["all", "distinct", "distinctrow"]) || self.is_sign(next, &["("]) {
            next += 1;
        }
        if self.is_word(next, &["values"]) && self.is_sign(next + 1, &["("]) {
            return Some("union");
        }
        if !self.is_word(next, &["select"]) {
            return None;
        }
        let item = next + 1;
        let lists = match self.tokens.get(item) {
            None | Some(Token::Number | Token::Text(_) | Token::Variable(_) | Token::Comment(_)) => true,
            Some(Token::Sign(sign)) => matches!(*sign, "*" | "(" | "-" | "~" | "@" | "!" | "{" | "."),
            Some(Token::Word(word)) => {
                matches!(*word, "null" | "all" | "distinct" | "top" | "char" | "case")
                    || self.is_sign(item + 1, &[",", "(", "."])
                    || self.is_word(item + 1, &["from"])
                    || self.ends(item + 1)
            }
        };
        (lists
            && (self.continues_a_value()
                || !matches!(self.tokens.get(item), None | Some(Token::Word(_)))
                || self.is_sign(item + 1, &[",", "("])
                || self.is_word(item + 1, &["from"])
                || at == 0
                || self.is_word(item, &["null"])))
        .then_some("union select")
    }

    /// `or 1=1` and everything like it.
    fn condition(&self, at: usize) -> Option<&'static str> {
        let joins = self
            .is_word(at, &["or", "and", "xor", "having", "where", "when", "on", "not", "rlike", "regexp", "like"])
            || self.is_sign(at, &["||", "&&"]);
        // Only brackets stand between the string's end and this.
        let broken_out = self.quoted && (1..at).all(|before| self.is_sign(before, &[")"]));
        let compares_at_once =
            self.quoted && at == 1 && self.is_sign(1, &["=", "<", ">", "<>", "!=", "<=", ">=", "==", "<=>"]);
        if compares_at_once {
            let (operand, next) = self.operand(2)?;
            let whole = self.ends(next) || self.is_word(next, &["or", "and"]) || self.comparison(next).is_some();
            return (whole && !matches!(operand, Operand::Name(_))).then_some("condition");
        }
        if !joins {
            return None;
        }
        let (left, next) = self.operand(at + 1)?;
        let began = self.continues_a_value();
        if let Some(after) = self.comparison(next) {
            let right = self.operand(after);
            let literal = |operand: Operand<'_>| !matches!(operand, Operand::Name(_));
            return match right {
                // `or 1=` goes on with the statement's own quote.
                None => (self.quoted && after >= self.tokens.len()).then_some("condition"),
                // "5 > 3 and 2 < 4" is arithmetic; what is injected goes on from a value, or says `=`.
                Some((right, _)) if literal(left) && literal(right) => {
                    (began || at <= 1 || self.is_sign(next, &["=", "=="]) || right != Operand::Literal)
                        .then_some("condition")
                }
                Some((right, end)) if left == right => (began || self.ends(end)).then_some("condition"),
                Some((right, end)) if literal(left) || literal(right) => {
                    (broken_out || began && self.quoted || began && (at == 1 || self.is_cut(end) || self.ends(end)))
                        .then_some("condition")
                }
                Some((_, end)) => (broken_out
                    && (self.is_sign(next, &["=", "<", ">", "<>", "!="]) || self.is_cut(end)))
                .then_some("condition"),
            };
        }
        let bare = !matches!(left, Operand::Name(_));
        // `'and'` is a word in quotes: what follows it is no value.
        let bare = bare && !(next >= self.tokens.len() && matches!(self.tokens[next - 1], Token::Text("")));
        let truth = self.ends(next) || self.is_sign(next, &[")"]);
        if broken_out && bare && (truth || left == Operand::Call) {
            return Some("condition");
        }
        let compares_inside =
            left == Operand::Group && self.operand(at + 2).is_some_and(|(_, inner)| self.comparison(inner).is_some());
        let goes_on = broken_out
            && bare
            && self.is_word(next, &["limit", "order", "group", "and", "or", "union", "into", "having"]);
        if began && compares_inside || goes_on {
            return Some("condition");
        }
        let cut = self.is_cut(next) || self.is_sign(next, &[")"]) && self.is_cut(next + 1);
        (began && bare && (cut || left == Operand::Call && self.ends(next) && at == 1)).then_some("condition")
    }

    /// Behind a comparison that begins at `at`.
    fn comparison(&self, at: usize) -> Option<usize> {
        if self.is_sign(at, &["=", "==", "<", ">", "<>", "!=", "<=", ">=", "<=>", "!<", "!>"]) {
            return Some(at + 1);
        }
        let at = if self.is_word(at, &["not", "is", "sounds"]) { at + 1 } else { at };
        let at = if self.is_word(at, &["not"]) { at + 1 } else { at };
        if self.is_word(at, &["like", "rlike", "regexp", "ilike", "glob", "in", "between", "similar"]) {
            return Some(at + 1);
        }
        self.is_word(at, &["null", "true", "false"]).then_some(at)
    }

    /// A call that waits or tells, or a table that describes the database.
    fn call(&self, at: usize) -> Option<&'static str> {
        if let Some(Token::Variable(name)) = self.tokens.get(at) {
            let server = [
                "version",
                "datadir",
                "hostname",
                "servername",
                "basedir",
                "global",
                "tmpdir",
                "language",
                "spid",
                "user",
            ];
            let told = server.contains(name) || name.starts_with("version_");
            let selected =
                at > 0 && (self.is_word(at - 1, &["select", "all"]) || self.is_sign(at - 1, &[",", "=", "(", "-"]));
            return (told && (selected || at == 0)).then_some("server variable");
        }
        let word = self.word(at)?;
        if CATALOGUES.contains(&word) || word.starts_with("dbms_") || word.starts_with("utl_") || word == "xp_cmdshell"
        {
            let follows = self.is_sign(at + 1, &[".", "("])
                || at > 0 && self.is_word(at - 1, &["from", "join", "into", "exec", "execute"]);
            return follows.then_some("catalogue");
        }
        let opens = self.is_sign(at + 1, &["("]);
        if word == "waitfor" && self.is_word(at + 1, &["delay", "time"]) {
            return Some("delay");
        }
        if word == "procedure" && self.is_word(at + 1, &["analyse"]) {
            return Some("procedure");
        }
        if word == "into" && self.is_word(at + 1, &["outfile", "dumpfile"]) {
            return Some("file written");
        }
        if word == "load" && self.is_word(at + 1, &["data"]) && (self.is_word(at + 2, &["infile", "local"])) {
            return Some("file read");
        }
        if !opens {
            return None;
        }
        // `time.sleep(5)` is somebody's program.
        let of_program = at > 0 && self.is_sign(at - 1, &[".", "::"]);
        let number = matches!(self.tokens.get(at + 2), Some(Token::Number));
        let inner_call =
            self.is_word(at + 2, INNER) || self.is_sign(at + 2, &["("]) && self.is_word(at + 3, &["select"]);
        let nested = inner_call && OUTER.contains(&word);
        let telling = TELLING.contains(&word) && !of_program
            || word == "sleep" && (number || inner_call || self.is_sign(at + 2, &["~", "-"])) && !of_program
            || matches!(word, "char" | "chr") && number && self.is_sign(at + 3, &[",", ")"]) && self.builds_text(at)
            || nested
            || matches!(word, "if" | "iif")
                && self.operand(at + 2).is_some_and(|(_, next)| self.comparison(next).is_some())
                && self.closing(at + 1) > at + 6
            || word == "rand" && at > 0 && self.is_sign(at - 1, &["("]) && self.is_word(at.wrapping_sub(2), &["floor"])
            || matches!(word, "version" | "database" | "user" | "schema")
                && self.is_sign(at + 2, &[")"])
                && self.is_told(at);
        telling.then_some("function")
    }

    /// `char(58)` is one of several that are joined, or one of a list.
    fn builds_text(&self, at: usize) -> bool {
        let end = self.closing(at + 1);
        self.is_sign(at + 3, &[","])
            || self.is_sign(end, &["+", "||", ",", "%", "="])
            || at > 0 && self.is_sign(at - 1, &["+", "||", "=", "(", ","])
    }

    /// A value of the server is selected or compared.
    fn is_told(&self, at: usize) -> bool {
        let end = self.closing(at + 1);
        at > 0 && (self.is_word(at - 1, &["select", "and", "or", "by"]) || self.is_sign(at - 1, &[",", "(", "=", "||"]))
            || self.comparison(end).is_some()
    }

    /// `select … from …` with a list that prose does not have.
    fn selection(&self, at: usize) -> Option<&'static str> {
        if !self.is_word(at, &["select"]) {
            return None;
        }
        let in_brackets = at > 0 && self.is_sign(at - 1, &["("]);
        let mut next = at + 1;
        if self.is_word(next, &["distinct", "all", "top", "sql_calc_found_rows", "straight_join"]) {
            next += 1 + usize::from(
                self.is_word(next, &["top"]) && matches!(self.tokens.get(next + 1), Some(Token::Number)),
            );
        }
        let (mut items, mut strong) = (0, false);
        loop {
            if self.is_sign(next, &["*"]) {
                (strong, next) = (true, next + 1);
            } else if self.is_word(next, &["case"]) && self.is_word(next + 1, &["when"]) {
                return Some("select");
            } else {
                let (operand, after) = self.operand(next)?;
                // `select all 5 from` is prose as well as SQL; a call or a variable of the server is not.
                strong |= matches!(operand, Operand::Call | Operand::Group)
                    || matches!(self.tokens.get(next), Some(Token::Variable(_)));
                next = after;
            }
            items += 1;
            if self.is_word(next, &["as"]) {
                next += 2;
            }
            if !self.is_sign(next, &[","]) {
                break;
            }
            next += 1;
        }
        if self.is_word(next, &["into"]) && self.word(next + 1).is_some() {
            next += 2;
        }
        if self.is_word(next, &["from"]) && (self.word(next + 1).is_some() || self.is_sign(next + 1, &["("])) {
            let mut after = next + 2;
            while self.is_sign(after, &["."]) {
                after += 2;
            }
            let goes_on = self.is_word(after, &["where", "limit", "order", "group", "having", "join", "union", "as"])
                || self.is_cut(after)
                || self.is_sign(after, &[")", ";"])
                || self.is_sign(next + 1, &["("]);
            return (strong || items > 1 || in_brackets || goes_on || self.quoted).then_some("select");
        }
        let alone = self.ends(next) || self.is_sign(next, &[")"]);
        (alone && (in_brackets || strong && at == 0 || self.quoted)).then_some("select")
    }

    /// A statement after `;`, or at the very beginning.
    fn stacked(&self, at: usize) -> Option<&'static str> {
        let begins = at == 0 || self.is_sign(at - 1, &[";", ")", "{"]) || self.quoted && at == 1;
        if !begins {
            return None;
        }
        let object = [
            "table",
            "database",
            "schema",
            "user",
            "login",
            "view",
            "function",
            "procedure",
            "index",
            "column",
            "role",
            "trigger",
            "extension",
            "temporary",
            "or",
            "if",
        ];
        let named = self.word(at + 1).is_some();
        let variable = matches!(self.tokens.get(at + 1), Some(Token::Variable(_)));
        let found = match self.word(at)? {
            "drop" | "create" | "alter" | "truncate" => {
                self.is_word(at + 1, &object)
                    && (self.word(at + 2).is_some() && (at > 0 || self.ends(at + 3) || self.is_sign(at + 3, &["("])))
            }
            "insert" | "replace" => {
                self.is_word(at + 1, &["into"])
                    && self.word(at + 2).is_some()
                    && (at > 0 || self.is_sign(at + 3, &["("]) || self.is_word(at + 3, &["values", "select"]))
            }
            "delete" => {
                self.is_word(at + 1, &["from"])
                    && self.word(at + 2).is_some()
                    && (self.ends(at + 3) || self.is_word(at + 3, &["where"]))
            }
            "update" => named && self.is_word(at + 2, &["set"]) && self.is_sign(at + 4, &["=", "."]),
            "exec" | "execute" => {
                at > 0 && (named || self.is_sign(at + 1, &["("]) || variable)
                    || self
                        .word(at + 1)
                        .is_some_and(|word| word.starts_with("xp_") || word.starts_with("sp_") || word == "master")
            }
            "declare" => variable,
            "set" => variable && at > 0,
            "shutdown" => at > 0 && (self.ends(at + 1) || self.is_word(at + 1, &["with"])),
            "begin" | "if" | "while" => {
                at > 0 && (self.is_sign(at + 1, &["("]) || self.is_word(at + 1, &["declare", "exec", "select", "not"]))
            }
            "grant" | "revoke" => named && self.is_word(at + 2, &["on", "to", "privileges"]),
            "copy" => named && (self.is_word(at + 2, &["from", "to"]) || self.is_sign(at + 2, &["("])),
            "select" => at > 0 && !self.ends(at + 1) && !matches!(self.tokens.get(at + 1), Some(Token::Word(_))),
            "handler" | "merge" | "call" | "attach" => {
                at > 0
                    && named
                    && (self.is_sign(at + 2, &["("])
                        || self.is_word(at + 2, &["open"])
                        || self.is_word(at + 1, &["database"]))
            }
            "backup" => self.is_word(at + 1, &["database", "log"]),
            _ => false,
        };
        found.then_some("second statement")
    }

    /// `order by 3--` and other ends of a statement that only fit behind a value.
    fn clause(&self, at: usize) -> Option<&'static str> {
        let behind = at > 0
            && (self.quoted && at <= 2 || matches!(self.tokens[at - 1], Token::Number) || self.is_sign(at - 1, &[")"]));
        match self.word(at)? {
            "order" | "group" if self.is_word(at + 1, &["by"]) => {
                let (operand, next) = self.operand(at + 2)?;
                let listed = self.is_sign(next, &[","])
                    || self.is_word(next, &["having", "asc", "desc", "limit"])
                    || self.ends(next);
                (behind && listed && (self.quoted || operand != Operand::Literal || self.ends(next))
                    || self.is_cut(next) && operand == Operand::Literal)
                    .then_some("clause")
            }
            "limit" if self.quoted && at <= 2 => {
                matches!(self.tokens.get(at + 1), Some(Token::Number)).then_some("clause")
            }
            "case" if self.is_word(at + 1, &["when"]) => {
                (at > 0 && self.tokens.len() > at + 5 && self.tokens.contains(&Token::Word("then"))).then_some("case")
            }
            "in" if self.is_sign(at + 1, &["("]) && self.is_word(at + 2, &["select"]) => Some("select"),
            "collate" | "escape" | "into" if self.quoted && at == 1 => Some("clause"),
            _ => None,
        }
    }

    /// A string's end and then nothing that counts, or an operator between two strings.
    fn cut_off(&self) -> Option<&'static str> {
        if !self.quoted {
            // `1--`, `1;--`, `1)#`: a value whose statement is cut off.
            let value = matches!(self.tokens.first(), Some(Token::Number));
            let mut next = 1;
            while self.is_sign(next, &[")", ";"]) {
                next += 1;
            }
            let comment = match self.tokens.get(next) {
                Some(Token::Comment(rest)) => {
                    rest.trim_matches(|c: char| c.is_whitespace() || c == '-' || c == '+').is_empty()
                }
                _ => false,
            };
            return (value && comment && (next > 1 || self.tokens.len() == 2)).then_some("comment");
        }
        let Some(Token::Text(before)) = self.tokens.first() else { return None };
        let mut next = 1;
        while self.is_sign(next, &[")", ";"]) {
            next += 1;
        }
        if let Some(Token::Comment(rest)) = self.tokens.get(next) {
            // `'#1'` at the beginning of a text is a title, `admin'#` is not.
            let glued = !before.is_empty() && !before.ends_with(char::is_whitespace);
            let nothing = rest.trim_matches(|c: char| c.is_whitespace() || c == '-' || c == '+').is_empty();
            return (glued || nothing || next > 1).then_some("comment");
        }
        let joins = self.is_sign(1, &["||", "-", "^", "*", "&", "|", "%", "/", "+"]);
        let (operand, end) = if joins { self.operand(2)? } else { return None };
        let again = self.is_sign(1, &["||"]) && matches!(operand, Operand::Call | Operand::Group);
        let only = self.tokens.len() == 3 && matches!(self.tokens[2], Token::Text("")) && before.is_empty();
        let concatenated =
            self.is_sign(1, &["||"]) && matches!(self.tokens.get(2), Some(Token::Text(_))) && self.ends(end);
        (again || only || concatenated).then_some("operator")
    }
}
