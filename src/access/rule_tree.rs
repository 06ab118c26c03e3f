//! The rules of one kind of Clients by their filters, so that a decision visits the levels of a topic and not all rules.
//!
//! A tree of levels: at each node, one child for each text, one for `+`, and one for each distinct text with values. A rule is
//! at the node where its filter ends. Of the rules at one node, those that an earlier one there makes pointless are left out.

use hashbrown::HashMap;
use std::sync::Arc;

use crate::access::rule::{CIRCUMSTANCES, Circumstances, Effect, Operation, Operations, Rule};
use crate::access::template::{Level, Part, Safety, Values, has_group};

/// A tree of rules.
#[derive(Debug, Default)]
pub(super) struct RuleTree {
    root: Node,
}

#[derive(Debug, Default)]
struct Node {
    texts: HashMap<Box<str>, Node>,
    single: Option<Box<Node>>,
    composed: Vec<(Arc<[Part]>, Node)>,
    /// Rules whose filter ends here.
    here: Vec<Entry>,
    /// Rules whose filter ends here with `#`.
    below: Vec<Entry>,
}

/// A rule in the tree.
#[derive(Debug, Clone, Copy)]
struct Entry {
    /// Its position in the order of all rules.
    rank: u32,
    effect: Effect,
    operations: Operations,
    circumstances: Circumstances,
}

/// The first rule that applies, for each combination of QoS and RETAIN; `u32::MAX` is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct First(pub(super) [u32; CIRCUMSTANCES]);

/// A request, as the tree sees it.
#[derive(Clone, Copy)]
pub(super) struct Question<'a> {
    pub(super) operation: Operation,
    /// The Topic Name or Topic Filter. A Topic Name is a filter that only itself matches, so one search serves both.
    pub(super) topic: &'a str,
    pub(super) values: &'a Values,
}

/// How far a search has come.
#[derive(Clone, Copy)]
struct Position<'a> {
    /// The levels to come; `None` behind the last.
    rest: Option<&'a str>,
    is_first: bool,
    /// The group that stands for `%g`, once one was used.
    group: Option<&'a str>,
    /// Whether a value on the way was unsafe.
    safety: Safety,
}

impl Default for First {
    fn default() -> Self {
        Self([u32::MAX; CIRCUMSTANCES])
    }
}

impl RuleTree {
    /// Adds a rule. Those with a lower rank must have been added before.
    pub(super) fn insert(&mut self, rank: u32, rule: &Rule) {
        let mut node = &mut self.root;
        let mut is_multi = false;
        for level in &rule.filter.levels {
            node = match level {
                Level::Text(text) => node.texts.entry(text.clone()).or_default(),
                Level::Single => node.single.get_or_insert_default(),
                Level::Composed(parts) => node.composed(parts),
                Level::Multi => {
                    is_multi = true;
                    break;
                }
            };
        }
        let entries = if is_multi { &mut node.below } else { &mut node.here };
        let entry = Entry {
            rank,
            effect: rule.effect,
            operations: rule.operations,
            circumstances: rule.circumstances,
        };
        // A denial and a permission differ where a value is unsafe, so only rules with the same effect replace each other.
        let is_pointless = entries.iter().any(|earlier| {
            earlier.effect == entry.effect
                && entry.operations.intersection(earlier.operations) == entry.operations
                && entry.circumstances.0 & !earlier.circumstances.0 == 0
        });
        if !is_pointless {
            entries.push(entry);
        }
    }

    /// Finds the first rule that applies, among those of `first` and of this tree, where filters cover the requested one.
    pub(super) fn search(&self, question: &Question<'_>, first: &mut First) {
        self.root.search(question, Position::start(question.topic), first);
    }

    /// The same for rules that apply to a requested filter with the same text.
    pub(super) fn search_text(&self, question: &Question<'_>, first: &mut First) {
        self.root.search_text(question, Position::start(question.topic), first);
    }
}

impl<'a> Position<'a> {
    fn start(topic: &'a str) -> Self {
        Self { rest: Some(topic), is_first: true, group: None, safety: Safety::Safe }
    }

    fn after(self, rest: Option<&'a str>) -> Self {
        Self { rest, is_first: false, ..self }
    }
}

impl Node {
    fn composed(&mut self, parts: &Arc<[Part]>) -> &mut Self {
        let known = self.composed.iter().position(|(known, _)| known == parts);
        let index = known.unwrap_or_else(|| {
            self.composed.push((Arc::clone(parts), Self::default()));
            self.composed.len() - 1
        });
        &mut self.composed[index].1
    }

    fn search(&self, question: &Question<'_>, position: Position<'_>, first: &mut First) {
        // Wildcards in the first level match nothing that begins with `$`. [MQTT-4.7.2-1]
        let is_hidden = position.is_first && question.topic.starts_with('$');
        if !is_hidden {
            first.take(&self.below, question.operation, position.safety);
        }
        let Some(rest) = position.rest else {
            first.take(&self.here, question.operation, position.safety);
            return;
        };
        let (level, rest_after) = split(rest);
        if let Some(child) = self.texts.get(level) {
            child.search(question, position.after(rest_after), first);
        }
        if let Some(child) = &self.single
            && level != "#"
            && !is_hidden
        {
            child.search(question, position.after(rest_after), first);
        }
        self.search_composed(question, position, rest, &mut |child, position| {
            child.search(question, position, first);
        });
    }

    fn search_text(&self, question: &Question<'_>, position: Position<'_>, first: &mut First) {
        let Some(rest) = position.rest else {
            first.take(&self.here, question.operation, position.safety);
            return;
        };
        match split(rest) {
            ("#", _) => first.take(&self.below, question.operation, position.safety),
            ("+", after) => {
                if let Some(child) = &self.single {
                    child.search_text(question, position.after(after), first);
                }
            }
            (level, after) => {
                if let Some(child) = self.texts.get(level) {
                    child.search_text(question, position.after(after), first);
                }
                self.search_composed(question, position, rest, &mut |child, position| {
                    child.search_text(question, position, first);
                });
            }
        }
    }

    /// Follows the children with values. One that contains `/` may use up several levels.
    fn search_composed<'a>(
        &self,
        question: &Question<'a>,
        position: Position<'a>,
        rest: &'a str,
        follow: &mut dyn FnMut(&Self, Position<'a>),
    ) {
        for (parts, child) in &self.composed {
            let groups = &question.values.groups;
            let choices = match position.group {
                None if has_group(parts) => groups.len(),
                Some(_) | None => 1,
            };
            for index in 0..choices {
                let group = match position.group {
                    None if has_group(parts) => groups.get(index).map(|group| &**group),
                    group => group,
                };
                let substituted = question.values.substitute(parts, group, position.is_first);
                let Some((text, safety)) = substituted else { continue };
                let Some(rest) = rest.strip_prefix(&*text) else { continue };
                let rest = match rest.strip_prefix('/') {
                    Some(rest) => Some(rest),
                    None if rest.is_empty() => None,
                    None => continue,
                };
                let safety = if safety == Safety::Safe { position.safety } else { safety };
                follow(child, Position { group, safety, ..position.after(rest) });
            }
        }
    }
}

impl First {
    fn take(&mut self, entries: &[Entry], operation: Operation, safety: Safety) {
        for entry in entries {
            let applies = entry.operations.contains(operation)
                && (safety == Safety::Safe || entry.effect == Effect::Deny);
            if !applies {
                continue;
            }
            for (index, rank) in self.0.iter_mut().enumerate() {
                if entry.circumstances.0 & (1 << index) != 0 {
                    *rank = (*rank).min(entry.rank);
                }
            }
        }
    }
}

/// The first level, and the levels after it.
fn split(rest: &str) -> (&str, Option<&str>) {
    match rest.split_once('/') {
        Some((level, after)) => (level, Some(after)),
        None => (rest, None),
    }
}

#[cfg(test)]
impl RuleTree {
    /// How many rules it holds.
    pub(super) fn entry_count(&self) -> usize {
        fn count(node: &Node) -> usize {
            let texts = node.texts.values();
            let children = texts.chain(node.single.as_deref());
            let children = children.chain(node.composed.iter().map(|(_, child)| child));
            node.here.len() + node.below.len() + children.map(count).sum::<usize>()
        }
        count(&self.root)
    }
}
