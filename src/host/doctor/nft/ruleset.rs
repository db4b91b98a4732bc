//! The chains and rules of nftables, as `nft -j list ruleset` prints them.

use serde_json::Value;

use crate::host::model::private_filter::TABLE_PREFIX;

/// A chain of nftables.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Chain {
    pub(crate) family: String,
    pub(crate) table: String,
    pub(crate) name: String,
    /// True for a chain of type `nat`, whose rules see only the first packet of a connection.
    pub(crate) nat: bool,
    /// Hook of a base chain; None for a chain that only other chains call.
    pub(crate) hook: Option<String>,
    /// Priority; lower values come first.
    pub(crate) priority: i64,
    /// Devices of an ingress or egress hook; None when nft does not print them.
    pub(crate) devices: Option<Vec<String>>,
    /// True for the policy `drop`.
    pub(crate) drops: bool,
    pub(crate) rules: Vec<ChainRule>,
}

/// A rule of a chain.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ChainRule {
    /// Number in the whole ruleset.
    pub(super) number: usize,
    pub(crate) expressions: Vec<Value>,
}

/// Reads the output of `nft -j list ruleset`; None if the output has another form.
///
/// Leaves out natbox's own table: it drops no packet that natbox has translated.
pub(crate) fn parse(text: &str) -> Option<Vec<Chain>> {
    let whole: Value = serde_json::from_str(text).ok()?;
    let mut chains: Vec<Chain> = Vec::new();
    for (number, item) in whole.get("nftables")?.as_array()?.iter().enumerate() {
        if let Some(chain) = item.get("chain") {
            let chain = parse_chain(chain)?;
            if !chain.table.starts_with(TABLE_PREFIX) {
                chains.push(chain);
            }
        } else if let Some(rule) = item.get("rule") {
            let chain = chains.iter_mut().find(|chain| {
                let has = |key: &str, value: &str| rule.get(key).is_some_and(|v| v == value);
                has("family", &chain.family)
                    && has("table", &chain.table)
                    && has("chain", &chain.name)
            });
            if let Some(chain) = chain {
                let expressions = rule.get("expr")?.as_array()?.clone();
                chain.rules.push(ChainRule { number, expressions });
            }
        }
    }
    Some(chains)
}

fn parse_chain(chain: &Value) -> Option<Chain> {
    let text = |key: &str| chain.get(key).and_then(Value::as_str).map(str::to_owned);
    Some(Chain {
        family: text("family")?,
        table: text("table")?,
        name: text("name")?,
        nat: text("type").as_deref() == Some("nat"),
        hook: text("hook"),
        priority: chain.get("prio").and_then(Value::as_i64).unwrap_or(0),
        devices: chain.get("dev").map(names),
        drops: text("policy").as_deref() == Some("drop"),
        rules: Vec::new(),
    })
}

/// Reads one name or a list of names.
fn names(value: &Value) -> Vec<String> {
    let several = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
    several.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}
