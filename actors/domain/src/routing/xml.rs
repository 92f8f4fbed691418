//! Contexts from the original's XML. Errors name line and column; what the format does not know is an error, since a
//! condition passed over silently would send calls astray.

use std::{collections::HashSet, fmt::Display, str::FromStr};

use roxmltree::{Document, Node, ParsingOptions};

use super::{
    context::{Action, CdpnChange, CgpnChange, Conditions, Context, Rule, RuleResult},
    template::Template,
};

/// Largest file, bytes.
pub const MAX_BYTES: usize = 64 * 1024 * 1024;

/// Where and why a file is no context.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {what}")]
pub struct XmlError {
    pub line: u32,
    pub column: u32,
    pub what: String,
}

struct Reader<'x> {
    doc: &'x Document<'x>,
}

type Result<T> = std::result::Result<T, XmlError>;

/// Reads one `<context>`.
pub fn parse(text: &str) -> Result<Context> {
    if text.len() > MAX_BYTES {
        return Err(XmlError {
            line: 1,
            column: 1,
            what: format!("the file is larger than {MAX_BYTES} bytes"),
        });
    }
    let text = text.trim_start_matches('\u{feff}');
    let options = ParsingOptions { allow_dtd: false, nodes_limit: 20_000_000, ..ParsingOptions::default() };
    let doc = Document::parse_with_options(text, options).map_err(|e| {
        let at = e.pos();
        // The position stands in front; the library's text ends with it.
        let what = e.to_string();
        let what = what.rsplit_once(" at ").map_or(what.as_str(), |(w, _)| w).to_owned();
        XmlError { line: at.row, column: at.col, what: format!("the XML is broken: {what}") }
    })?;
    Reader { doc: &doc }.context(doc.root_element(), text)
}

impl<'x> Reader<'x> {
    fn error<T>(&self, at: usize, what: impl Display) -> Result<T> {
        let pos = self.doc.text_pos_at(at);
        Err(XmlError { line: pos.row, column: pos.col, what: what.to_string() })
    }

    fn at_node<T>(&self, node: Node, what: impl Display) -> Result<T> {
        self.error(node.range().start, what)
    }

    /// The attribute, which must be there.
    fn need(&self, node: Node<'x, 'x>, name: &str) -> Result<&'x str> {
        match node.attribute(name) {
            Some(v) if !v.trim().is_empty() => Ok(v),
            _ => self.at_node(node, format!("<{}> wants the attribute {name}", node.tag_name().name())),
        }
    }

    /// The attribute as a value of its kind.
    fn read<T: FromStr<Err: Display>>(&self, node: Node, name: &str) -> Result<Option<T>> {
        let Some(attribute) = node.attribute_node(name) else { return Ok(None) };
        match attribute.value().trim().parse() {
            Ok(v) => Ok(Some(v)),
            Err(e) => self.error(attribute.range().start, format!("{name}={:?}: {e}", attribute.value())),
        }
    }

    /// As [`Reader::read`], for words.
    fn word<T: FromStr + strum::VariantNames>(&self, node: Node, name: &str) -> Result<Option<T>> {
        let Some(attribute) = node.attribute_node(name) else { return Ok(None) };
        match attribute.value().trim().parse() {
            Ok(v) => Ok(Some(v)),
            Err(_) => {
                let what = format!("{name}={:?} is none of {}", attribute.value(), T::VARIANTS.join(", "));
                self.error(attribute.range().start, what)
            }
        }
    }

    fn only(&self, node: Node, known: &[&str]) -> Result<()> {
        for attribute in node.attributes() {
            // Schema locations and the like are somebody else's.
            if attribute.namespace().is_none() && !known.contains(&attribute.name()) {
                let (tag, name) = (node.tag_name().name(), attribute.name());
                let what = format!("<{tag}> has no attribute {name}; it may have {}", list(known));
                return self.error(attribute.range().start, what);
            }
        }
        Ok(())
    }

    fn elements(&self, node: Node<'x, 'x>, known: &[&str]) -> Result<Vec<Node<'x, 'x>>> {
        let mut out = Vec::new();
        for child in node.children() {
            if child.is_element() {
                let name = child.tag_name().name();
                if !known.contains(&name) {
                    let what = format!(
                        "<{name}> does not belong into <{}>; it may hold {}",
                        node.tag_name().name(),
                        list(known)
                    );
                    return self.at_node(child, what);
                }
                out.push(child);
            } else if child.is_text() && !child.text().unwrap_or_default().trim().is_empty() {
                return self
                    .at_node(child, format!("text does not belong into <{}>", node.tag_name().name()));
            }
        }
        Ok(out)
    }

    fn context(&self, node: Node<'x, 'x>, source: &str) -> Result<Context> {
        if node.tag_name().name() != "context" {
            return self.at_node(node, format!("a <context> is wanted, not <{}>", node.tag_name().name()));
        }
        self.only(node, &["name", "digitmap", "np"])?;
        let name = self.need(node, "name")?;
        if name.contains(|c: char| c.is_whitespace() || c == '/') {
            return self.at_node(node, format!("the name {name:?} must not hold blanks or slashes"));
        }
        let digitmap = self.read(node, "digitmap")?;
        let np = node.attribute("np").map(str::to_owned);
        let mut names = HashSet::new();
        let mut rules = Vec::new();
        for child in self.elements(node, &["rule"])? {
            let rule = self.rule(child)?;
            if !names.insert(rule.name.clone()) {
                return self.at_node(child, format!("a second rule {:?}", rule.name));
            }
            rules.push(rule);
        }
        if rules.is_empty() {
            return self.at_node(node, "a context wants at least one <rule>");
        }
        Ok(Context::new(name.to_owned(), digitmap, np, rules, source))
    }

    fn rule(&self, node: Node<'x, 'x>) -> Result<Rule> {
        self.only(node, &["name"])?;
        let name = self.need(node, "name")?.to_owned();
        let parts = self.elements(node, &["conditions", "actions", "result"])?;
        let mut conditions = None;
        let mut actions = None;
        let mut result = None;
        for part in &parts {
            let tag = part.tag_name().name();
            let twice = match tag {
                "conditions" => conditions.replace(self.conditions(*part)?).is_some(),
                "actions" => actions.replace(self.actions(*part)?).is_some(),
                _ => result.replace(self.result(*part)?).is_some(),
            };
            if twice {
                return self.at_node(*part, format!("rule {name:?} has <{tag}> twice"));
            }
        }
        let Some(result) = result else {
            return self
                .at_node(node, format!("rule {name:?} has no <result>: <local/>, <external> or <continue>"));
        };
        let rule = Rule {
            name,
            conditions: conditions.unwrap_or_default(),
            actions: actions.unwrap_or_default(),
            result,
        };
        self.tails(node, &rule)?;
        Ok(rule)
    }

    /// A template that speaks of the mask's `%` needs one.
    fn tails(&self, node: Node, rule: &Rule) -> Result<()> {
        let (cdpn, cgpn) = (&rule.conditions.cdpn, &rule.conditions.cgpn);
        for action in &rule.actions {
            let (what, template, mask): (_, &Option<Template>, _) = match action {
                Action::Cdpn(c) => ("cdpn", &c.digits, cdpn),
                Action::SormCalled { digits, .. } => ("called", digits, cdpn),
                Action::Cgpn(c) => ("cgpn", &c.digits, cgpn),
                Action::SormCalling { digits, .. } => ("calling", digits, cgpn),
            };
            let tail = mask.as_ref().is_none_or(super::mask::Mask::has_tail);
            if let Some(t) = template.as_ref().filter(|t| t.needs_tail() && !tail) {
                let what =
                    format!("<{what}> with {t:?} takes the tail of the number, so its mask must end in %");
                return self.at_node(node, what);
            }
        }
        Ok(())
    }

    fn conditions(&self, node: Node<'x, 'x>) -> Result<Conditions> {
        self.only(node, &[])?;
        let mut c = Conditions::default();
        let mut seen = HashSet::new();
        for child in self.elements(node, &["cdpn", "cgpn", "iface", "time", "weekday"])? {
            let tag = child.tag_name().name();
            if !seen.insert(tag) {
                return self.at_node(child, format!("<{tag}> twice in one <conditions>"));
            }
            match tag {
                "cdpn" => {
                    self.only(child, &["digits", "ni", "nai"])?;
                    c.cdpn = self.read(child, "digits")?;
                    c.cdpn_ni = self.word(child, "ni")?;
                    c.cdpn_nai = self.word(child, "nai")?;
                }
                "cgpn" => {
                    self.only(child, &["digits", "ni", "nai", "category"])?;
                    c.cgpn = self.read(child, "digits")?;
                    c.cgpn_ni = self.word(child, "ni")?;
                    c.cgpn_nai = self.word(child, "nai")?;
                    c.category = self.read(child, "category")?;
                }
                "iface" => {
                    self.only(child, &["value"])?;
                    c.iface = Some(self.need(child, "value")?.to_owned());
                }
                "time" => {
                    self.only(child, &["from", "to"])?;
                    c.time = Some((self.minute(child, "from")?, self.minute(child, "to")?));
                }
                _ => {
                    self.only(child, &["days"])?;
                    let days = self.need(child, "days")?;
                    match weekdays(days) {
                        Some(set) => c.weekdays = Some(set),
                        None => {
                            return self
                                .at_node(child, format!("days={days:?}: write 1-5 or 1,3,7; Monday is 1"));
                        }
                    }
                }
            }
        }
        Ok(c)
    }

    fn minute(&self, node: Node<'x, 'x>, name: &str) -> Result<u16> {
        let text = self.need(node, name)?;
        let minute =
            text.split_once(':').and_then(|(h, m)| Some((h.parse::<u16>().ok()?, m.parse::<u16>().ok()?)));
        match minute {
            Some((h, m)) if h < 24 && m < 60 => Ok(h * 60 + m),
            Some((24, 0)) => Ok(24 * 60),
            _ => self.at_node(node, format!("{name}={text:?} is no time; write 08:30")),
        }
    }

    fn actions(&self, node: Node<'x, 'x>) -> Result<Vec<Action>> {
        self.only(node, &[])?;
        let mut actions = Vec::new();
        for child in self.elements(node, &["cdpn", "cgpn", "called", "calling"])? {
            actions.push(match child.tag_name().name() {
                "cdpn" => {
                    self.only(child, &["digits", "ni", "nai", "npi", "inni", "incomplete"])?;
                    Action::Cdpn(CdpnChange {
                        digits: self.read(child, "digits")?,
                        ni: self.word(child, "ni")?,
                        nai: self.word(child, "nai")?,
                        npi: self.word(child, "npi")?,
                        inni: self.word(child, "inni")?,
                        incomplete: self.read(child, "incomplete")?,
                    })
                }
                "cgpn" => {
                    let known = ["digits", "ni", "nai", "npi", "apri", "screening", "incomplete", "category"];
                    self.only(child, &known)?;
                    Action::Cgpn(CgpnChange {
                        digits: self.read(child, "digits")?,
                        ni: self.word(child, "ni")?,
                        nai: self.word(child, "nai")?,
                        npi: self.word(child, "npi")?,
                        apri: self.word(child, "apri")?,
                        screening: self.word(child, "screening")?,
                        incomplete: self.read(child, "incomplete")?,
                        category: self.read(child, "category")?,
                    })
                }
                tag => {
                    self.only(child, &["sorm_digits", "sorm_ni"])?;
                    let digits = self.read(child, "sorm_digits")?;
                    let ni = self.word(child, "sorm_ni")?;
                    if tag == "called" {
                        Action::SormCalled { digits, ni }
                    } else {
                        Action::SormCalling { digits, ni }
                    }
                }
            });
        }
        Ok(actions)
    }

    fn result(&self, node: Node<'x, 'x>) -> Result<RuleResult> {
        self.only(node, &[])?;
        let results = self.elements(node, &["local", "external", "continue"])?;
        let [result] = results.as_slice() else {
            return self.at_node(node, "<result> wants exactly one of <local/>, <external>, <continue>");
        };
        match result.tag_name().name() {
            "local" => {
                self.only(*result, &[])?;
                self.elements(*result, &[])?;
                Ok(RuleResult::Local)
            }
            "continue" => {
                self.only(*result, &["context"])?;
                Ok(RuleResult::Continue(self.need(*result, "context")?.to_owned()))
            }
            _ => {
                self.only(*result, &[])?;
                let ways = self.elements(*result, &["trunk", "direction"])?;
                let [way] = ways.as_slice() else {
                    return self.at_node(
                        *result,
                        "<external> wants exactly one of <trunk value=…/>, <direction value=…/>",
                    );
                };
                self.only(*way, &["value"])?;
                let value = self.need(*way, "value")?.to_owned();
                Ok(if way.tag_name().name() == "trunk" {
                    RuleResult::Trunk(value)
                } else {
                    RuleResult::Direction(value)
                })
            }
        }
    }
}

fn list(known: &[&str]) -> String {
    if known.is_empty() { "none".to_owned() } else { known.join(", ") }
}

/// `1-5`, `1,3,7`: Monday is 1.
fn weekdays(text: &str) -> Option<u8> {
    let mut set = 0u8;
    for item in text.split(',') {
        let (from, to) = item.trim().split_once('-').unwrap_or((item.trim(), item.trim()));
        let (from, to) = (from.parse::<u8>().ok()?, to.parse::<u8>().ok()?);
        if from < 1 || to > 7 || from > to {
            return None;
        }
        (from..=to).for_each(|d| set |= 1 << (d - 1));
    }
    Some(set)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOOD: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<context xmlns:xs="http://www.w3.org/2001/XMLSchema-instance"
    xs:noNamespaceSchemaLocation="ecss_routing.xsd" name="default_routing" np="city" digitmap="1xx.|10xx.">
  <rule name="to_8">
    <conditions>
      <cdpn digits="8%"/>
      <cgpn digits="45???"/>
      <time from="08:00" to="18:00"/>
      <weekday days="1-5"/>
    </conditions>
    <actions>
      <called sorm_digits="8{" sorm_ni="intercity"/>
      <cdpn digits="7{" nai="nationalNumber"/>
      <calling sorm_digits="{1,2,3,4,5}" sorm_ni="private"/>
      <cgpn digits="38327{1,2,3,4,5}"/>
    </actions>
    <result><external><direction value="smg_trunk"/></external></result>
  </rule>
</context>"#;

    #[test]
    fn a_whole_rule_is_read() {
        let context = parse(GOOD).expect("a context");
        assert_eq!((context.name.as_str(), context.np.as_deref()), ("default_routing", Some("city")));
        let rule = &context.rules[0];
        assert_eq!(rule.actions.len(), 4);
        assert_eq!(rule.result, RuleResult::Direction("smg_trunk".into()));
        assert_eq!(rule.conditions.time, Some((480, 1080)));
        assert_eq!(rule.conditions.weekdays, Some(0b1_1111));
        let kept = serde_json::to_string(&context).expect("JSON");
        let again: Context = serde_json::from_str(&kept).expect("the same");
        assert_eq!(again.rules, context.rules);
    }

    #[test]
    fn errors_name_line_and_column() {
        for (from, to, line, hint) in [
            ("</actions>", "</action>", 16, "broken"),
            ("8%", "8%8", 6, "% must stand at the end"),
            ("\"45???\"", "\"4x\"", 7, "position 2"),
            ("sorm_ni=\"intercity\"", "sorm_ni=\"far\"", 12, "none of undefined, private"),
            ("<cgpn digits=\"45???\"/>", "<cgnp digits=\"45???\"/>", 7, "does not belong into <conditions>"),
            ("<cdpn digits=\"8%\"/>", "<cdpn digit=\"8%\"/>", 6, "no attribute digit"),
            ("<result><external><direction value=\"smg_trunk\"/></external></result>", "", 4, "no <result>"),
            ("smg_trunk", "", 17, "wants the attribute value"),
            ("<time from=\"08:00\"", "<time from=\"8\"", 8, "write 08:30"),
            ("8%", "8???", 4, "must end in %"),
        ] {
            let bad = GOOD.replace(from, to);
            assert_ne!(bad, GOOD, "{from} is there");
            let e = parse(&bad).expect_err(to);
            assert!(e.line == line && e.column > 0 && e.what.contains(hint), "{to}: {e}");
        }
        assert!(parse("").is_err());
        let bomb = "<!DOCTYPE a [<!ENTITY b \"c\">]><context name=\"x\"/>";
        assert!(parse(bomb).expect_err("no DTD").what.contains("broken"));
    }

    proptest! {
        #[test]
        fn any_text_is_a_context_or_an_error(text in any::<String>(), at in 0..GOOD.len(), cut in 0..20usize) {
            prop_assert!(parse(&text).is_err(), "no context is in it");
            let mut broken = GOOD.to_owned();
            let end = (at + cut).min(GOOD.len());
            broken.replace_range(at..end, &text);
            if let Ok(context) = parse(&broken) {
                let kept = serde_json::to_value(&context).expect("JSON");
                let read: Context = serde_json::from_value(kept.clone()).expect("as the journal keeps it");
                prop_assert_eq!(serde_json::to_value(read).expect("JSON"), kept);
            }
        }
    }
}
