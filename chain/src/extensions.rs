//! Transaction extensions: what else than the call is signed and sent.
//!
//! Which extensions an extrinsic bears stands in the metadata, in order. subxt knows the stock
//! ones (nonce, mortality, versions, genesis, payment, metadata hash); those that take up no
//! bytes need no knowledge (Subtensor's own: `SudoTransactionExtension`,
//! `CheckShieldedTxValidity`, `SubtensorTransactionExtension`, `DrandPriority`, besides
//! `CheckNonZeroSender` and `CheckWeight`); an unknown optional one is sent as `None`; and a
//! payment wrapper under its own name gets a tip of zero. Anything else is refused before
//! anything is signed: bytes left out would make every signature wrong.

use subxt::Metadata;
use subxt::ext::scale_value::Value;

use scale_info::{PortableRegistry, TypeDef};

/// Extensions that subxt encodes itself.
const KNOWN: [&str; 9] = [
    "VerifyMultiSignature",
    "CheckSpecVersion",
    "CheckTxVersion",
    "CheckNonce",
    "CheckGenesis",
    "CheckMortality",
    "ChargeAssetTxPayment",
    "ChargeTransactionPayment",
    "CheckMetadataHash",
];
/// Names under which Subtensor's wrapper of the payment extension may appear; its one value
/// is the tip.
const PAYMENT_WRAPPERS: [&str; 1] = ["ChargeTransactionPaymentWrapper"];
/// Nesting of types followed while looking for bytes: real ones are at most four deep.
const MAX_TYPE_DEPTH: usize = 16;

/// An extension of this runtime that cannot be encoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the runtime demands the transaction extension `{name}` with {part}, which this version cannot encode: nothing was signed. Update this program"
)]
pub struct UnsupportedExtension {
    /// Its name in the metadata.
    pub name: String,
    /// Which part of it has bytes.
    pub part: &'static str,
}

/// One extension as the metadata states it.
#[derive(Debug, Clone, Copy)]
struct Extension<'a> {
    name: &'a str,
    value: u32,
    implicit: u32,
}

/// Checks the extensions of signed (version 4) extrinsics, and returns the values to give for
/// those that subxt does not know.
///
/// # Errors
/// The first extension that cannot be encoded.
pub fn values_for(metadata: &Metadata) -> Result<Vec<(String, Value)>, UnsupportedExtension> {
    let extensions = metadata.extrinsic().transaction_extensions_by_version(0);
    let extensions = extensions.into_iter().flatten().map(|e| Extension {
        name: e.identifier(),
        value: e.extra_ty(),
        implicit: e.additional_ty(),
    });
    decide(extensions, metadata.types())
}

fn decide<'a>(
    extensions: impl Iterator<Item = Extension<'a>>,
    types: &PortableRegistry,
) -> Result<Vec<(String, Value)>, UnsupportedExtension> {
    let mut custom = Vec::new();
    for e in extensions {
        if KNOWN.contains(&e.name) {
            continue;
        }
        let unsupported = |part| Err(UnsupportedExtension { name: e.name.to_owned(), part });
        if !is_empty(e.implicit, types, MAX_TYPE_DEPTH) {
            return unsupported("an implicit part");
        }
        if is_empty(e.value, types, MAX_TYPE_DEPTH) || is_option(e.value, types) {
            continue;
        }
        if PAYMENT_WRAPPERS.contains(&e.name) {
            custom.push((e.name.to_owned(), Value::u128(0)));
            continue;
        }
        return unsupported("a value of its own");
    }
    Ok(custom)
}

/// Whether a type takes up no bytes.
fn is_empty(id: u32, types: &PortableRegistry, depth: usize) -> bool {
    let (Some(ty), Some(depth)) = (types.resolve(id), depth.checked_sub(1)) else {
        return false;
    };
    match &ty.type_def {
        TypeDef::Composite(c) => c.fields.iter().all(|f| is_empty(f.ty.id, types, depth)),
        TypeDef::Tuple(t) => t.fields.iter().all(|f| is_empty(f.id, types, depth)),
        TypeDef::Array(a) => a.len == 0 || is_empty(a.type_param.id, types, depth),
        _ => false,
    }
}

fn is_option(id: u32, types: &PortableRegistry) -> bool {
    types.resolve(id).is_some_and(|ty| ty.path.segments == ["Option"])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use scale_info::{Registry, TypeInfo, meta_type};

    #[derive(TypeInfo)]
    struct Empty;
    #[derive(TypeInfo)]
    struct Nested(#[allow(dead_code)] Empty, #[allow(dead_code)] ((), [u8; 0]));
    #[derive(TypeInfo)]
    struct Tip(#[allow(dead_code)] scale::Compact<u64>);

    /// Name, type in the extrinsic, type in what is signed.
    type Named<'a> = (&'a str, fn() -> scale_info::MetaType, fn() -> scale_info::MetaType);

    fn check(list: &[Named<'_>]) -> Result<Vec<String>, UnsupportedExtension> {
        let mut registry = Registry::new();
        let ids: Vec<_> = list
            .iter()
            .map(|(name, v, i)| (*name, registry.register_type(&v()).id, registry.register_type(&i()).id))
            .collect();
        let types: PortableRegistry = registry.into();
        let extensions = ids.iter().map(|&(name, value, implicit)| Extension { name, value, implicit });
        decide(extensions, &types).map(|c| c.into_iter().map(|(name, _)| name).collect())
    }

    #[test]
    fn subtensors_own_extensions_take_up_no_bytes_and_pass() {
        let none = check(&[
            ("CheckNonZeroSender", meta_type::<Empty>, meta_type::<()>),
            ("CheckNonce", meta_type::<scale::Compact<u32>>, meta_type::<()>),
            ("CheckGenesis", meta_type::<Empty>, meta_type::<[u8; 32]>),
            ("SubtensorTransactionExtension", meta_type::<Nested>, meta_type::<()>),
        ]);
        assert_eq!(none.unwrap(), Vec::<String>::new());
    }

    #[test]
    fn a_payment_wrapper_gets_a_tip_of_zero_and_an_option_gets_none() {
        let given = check(&[
            ("ChargeTransactionPaymentWrapper", meta_type::<Tip>, meta_type::<()>),
            ("Something", meta_type::<Option<u64>>, meta_type::<()>),
        ]);
        assert_eq!(given.unwrap(), ["ChargeTransactionPaymentWrapper"]);
    }

    #[test]
    fn an_unknown_extension_with_bytes_is_refused_by_name() {
        let value = check(&[("NewThing", meta_type::<u8>, meta_type::<()>)]).unwrap_err();
        assert_eq!((value.name.as_str(), value.part), ("NewThing", "a value of its own"));
        let implicit = check(&[("NewThing", meta_type::<Empty>, meta_type::<u32>)]).unwrap_err();
        assert_eq!(implicit.part, "an implicit part");
        assert!(implicit.to_string().contains("nothing was signed"));
    }
}
