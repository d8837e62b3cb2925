//! The node types a binary knows, by their `type:`. Explicit: nothing registers itself.

use super::{
    BuildContext, CodedError, Findings, NodeConfig, OperatorConfig, OperatorNode, RenderConfig, Sink, SinkConfig, Source, SourceConfig,
    Watch,
};
use serde_json::Value;
use std::any::Any;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Gives rows.
    Source,
    /// Changes rows.
    Operator,
    /// Takes rows.
    Sink,
}

impl Kind {
    /// The map of the pipeline file that holds such nodes.
    #[must_use]
    pub const fn section(self) -> &'static str {
        match self {
            Self::Source => "sources",
            Self::Operator => "operators",
            Self::Sink => "sinks",
        }
    }

    /// The word for messages.
    #[must_use]
    pub const fn noun(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Operator => "operator",
            Self::Sink => "sink",
        }
    }
}

/// A node's settings, read and of unknown type.
pub trait ParsedNode: Send + Sync {
    /// Looks for problems without I/O.
    fn check(&self, findings: &mut Findings);
    /// Names of its outputs; empty: one unnamed.
    fn outputs(&self) -> Vec<String>;
    /// Sources of the file that it watches.
    fn watches(&self) -> Vec<Watch>;
    /// Whether it is of use when no sink reads its rows.
    fn may_be_unread(&self) -> bool;
    /// The settings themselves.
    fn settings(&self) -> &dyn Any;
    /// What no other source of the process may use as well; nothing for other nodes.
    ///
    /// # Errors
    /// When a secret or file of the settings cannot be read.
    fn claims(&self, cx: &BuildContext) -> Result<Vec<String>, CodedError> {
        let _ = cx;
        Ok(Vec::new())
    }
    /// Makes the source.
    ///
    /// # Errors
    /// As the node's own build; never called on another kind.
    fn source(&self, cx: &BuildContext) -> Result<Box<dyn Source>, CodedError> {
        let _ = cx;
        unreachable!("{OTHER_KIND}")
    }
    /// Makes an instance of the operator.
    ///
    /// # Errors
    /// As the node's own build; never called on another kind.
    fn operator(&self, cx: &BuildContext) -> Result<OperatorNode, CodedError> {
        let _ = cx;
        unreachable!("{OTHER_KIND}")
    }
    /// Makes the sink.
    ///
    /// # Errors
    /// As the node's own build; never called on another kind.
    fn sink(&self, cx: &BuildContext) -> Result<Arc<dyn Sink>, CodedError> {
        let _ = cx;
        unreachable!("{OTHER_KIND}")
    }
}

/// Reads settings: the error is serde's message with the path it stands at.
pub type ParseNode = fn(Value) -> Result<Arc<dyn ParsedNode>, serde_path_to_error::Error<serde_json::Error>>;

/// One `type:`.
#[derive(Clone)]
pub struct NodeType {
    /// The word after `type:`.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// One line.
    pub summary: &'static str,
    /// Settings that build, as YAML.
    pub example: &'static str,
    /// Reads its settings.
    pub parse: ParseNode,
    /// Its settings' JSON Schema.
    pub schema: fn(&mut schemars::SchemaGenerator) -> schemars::Schema,
}

/// Every node type of a binary.
#[derive(Clone, Default)]
pub struct Registry {
    types: BTreeMap<(Kind, &'static str), NodeType>,
}

/// A kind's settings as [`ParsedNode`]: what its kind makes, and what no one asks it for.
macro_rules! parsed {
    ($wrapper:ident, $config:ident, outputs: $outputs:expr, $($makes:tt)*) => {
        struct $wrapper<C>(C);
        impl<C: $config> ParsedNode for $wrapper<C> {
            fn check(&self, findings: &mut Findings) {
                self.0.check(findings);
            }
            fn outputs(&self) -> Vec<String> {
                let outputs: fn(&C) -> Vec<String> = $outputs;
                outputs(&self.0)
            }
            fn watches(&self) -> Vec<Watch> {
                self.0.watches()
            }
            fn may_be_unread(&self) -> bool {
                self.0.may_be_unread()
            }
            fn settings(&self) -> &dyn Any {
                &self.0
            }
            $($makes)*
        }
    };
}

const OTHER_KIND: &str = "the graph asks a node only for what its kind makes";

parsed!(ParsedSource, SourceConfig, outputs: C::outputs,
fn claims(&self, cx: &BuildContext) -> Result<Vec<String>, CodedError> {
    self.0.claims(cx)
}
fn source(&self, cx: &BuildContext) -> Result<Box<dyn Source>, CodedError> {
    self.0.build(cx)
});
parsed!(ParsedOperator, OperatorConfig, outputs: C::outputs,
fn operator(&self, cx: &BuildContext) -> Result<OperatorNode, CodedError> {
    self.0.build(cx).map(OperatorNode::Batches)
});
parsed!(ParsedRender, RenderConfig, outputs: |_| Vec::new(),
fn operator(&self, cx: &BuildContext) -> Result<OperatorNode, CodedError> {
    self.0.build(cx).map(OperatorNode::Stream)
});
parsed!(ParsedSink, SinkConfig, outputs: C::outputs,
fn sink(&self, cx: &BuildContext) -> Result<Arc<dyn Sink>, CodedError> {
    self.0.build(cx)
});

impl Registry {
    /// A registry of nothing.
    #[must_use]
    pub fn empty() -> Self {
        Self::default()
    }

    fn add<C: NodeConfig>(mut self, kind: Kind, parse: ParseNode) -> Self {
        let node = NodeType {
            name: C::TYPE,
            kind,
            summary: C::SUMMARY,
            example: C::EXAMPLE,
            parse,
            schema: |generator| generator.subschema_for::<C>(),
        };
        let before = self.types.insert((kind, C::TYPE), node);
        assert!(before.is_none(), "two {}s are registered as \"{}\"", kind.noun(), C::TYPE);
        self
    }

    /// Adds a source.
    ///
    /// # Panics
    /// When the type is there already.
    #[must_use]
    pub fn source<C: SourceConfig>(self) -> Self {
        self.add::<C>(Kind::Source, |value| Ok(Arc::new(ParsedSource(serde_path_to_error::deserialize::<_, C>(value)?))))
    }

    /// Adds an operator.
    ///
    /// # Panics
    /// When the type is there already.
    #[must_use]
    pub fn operator<C: OperatorConfig>(self) -> Self {
        self.add::<C>(Kind::Operator, |value| Ok(Arc::new(ParsedOperator(serde_path_to_error::deserialize::<_, C>(value)?))))
    }

    /// Adds an operator over the raw stream.
    ///
    /// # Panics
    /// When the type is there already.
    #[must_use]
    pub fn render<C: RenderConfig>(self) -> Self {
        self.add::<C>(Kind::Operator, |value| Ok(Arc::new(ParsedRender(serde_path_to_error::deserialize::<_, C>(value)?))))
    }

    /// Adds a sink.
    ///
    /// # Panics
    /// When the type is there already.
    #[must_use]
    pub fn sink<C: SinkConfig>(self) -> Self {
        self.add::<C>(Kind::Sink, |value| Ok(Arc::new(ParsedSink(serde_path_to_error::deserialize::<_, C>(value)?))))
    }

    /// A type by kind and name.
    #[must_use]
    pub fn get(&self, kind: Kind, name: &str) -> Option<&NodeType> {
        self.types.values().find(|t| t.kind == kind && t.name == name)
    }

    /// Every type, sources first, by name.
    pub fn types(&self) -> impl Iterator<Item = &NodeType> {
        self.types.values()
    }
}
