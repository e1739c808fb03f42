//! Tests of the reader against files that are broken or strange.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use crate::zoo::fixtures::{Raw, file, spec, written};
use crate::zoo::verify;

fn refusal(bytes: &[u8]) -> String {
    let spec = spec("test_vit.r160_in1k");
    verify(&spec, &[written(bytes).path]).unwrap_err().to_string()
}

#[test]
fn a_file_that_does_not_fit_names_the_tensor_and_the_remedy() {
    let vit = spec("test_vit.r160_in1k");
    let at = |tensors: &[(String, Raw)], name: &str| tensors.iter().position(|(n, _)| n == name).unwrap();
    let missing = refusal(&file(&vit, |t| drop(t.remove(at(t, "head.bias")))));
    assert!(missing.contains("head.bias is missing") && missing.contains("perturb model pull"), "{missing}");
    let unknown = refusal(&file(&vit, |t| t.push(("extra".into(), ("F32", vec![1], vec![0; 4])))));
    assert!(unknown.contains("tensor extra with shape [1] is unknown"), "{unknown}");
    let shape = refusal(&file(&vit, |t| t[0].1 = ("F32", vec![64], vec![0; 256])));
    assert!(shape.contains("cls_token has shape [64], expected [1, 1, 64]"), "{shape}");
    let half = refusal(&file(&vit, |t| t[0].1 = ("F16", vec![1, 1, 64], vec![0; 128])));
    assert!(half.contains("cls_token has type F16"), "{half}");
    let nan = refusal(&file(&vit, |t| t[0].1.2[..4].copy_from_slice(&f32::NAN.to_le_bytes())));
    assert!(nan.contains("cls_token holds a value that is not finite"), "{nan}");
}

#[test]
fn a_variance_that_is_not_positive_is_refused() {
    let effnet = spec("small/tf_efficientnet_b");
    let bytes = file(&effnet, |tensors| {
        let (_, raw) = tensors.iter_mut().find(|(name, _)| name == "bn1.running_var").unwrap();
        raw.2[..4].copy_from_slice(&0.0_f32.to_le_bytes());
    });
    let error = verify(&effnet, &[written(&bytes).path]).unwrap_err().to_string();
    assert!(error.contains("bn1.running_var holds a variance that is not positive"), "{error}");
}

#[test]
fn counters_may_be_absent_and_buffers_that_follow_are_passed_over() {
    let effnet = spec("small/tf_efficientnet_b");
    let without = file(&effnet, |tensors| tensors.retain(|(name, _)| !name.ends_with("num_batches_tracked")));
    assert!(verify(&effnet, &[written(&without).path]).is_ok());
    let swin = spec("small/swin");
    let with = file(&swin, |tensors| {
        tensors.push(("layers.0.blocks.0.attn.relative_position_index".into(), ("I64", vec![2], vec![0; 16])));
    });
    assert!(verify(&swin, &[written(&with).path]).is_ok());
}

#[test]
fn truncated_and_garbage_files_are_errors() {
    let whole = file(&spec("test_vit.r160_in1k"), |_| {});
    for bytes in [&whole[..whole.len() - 1], &whole[..5000], &whole[..7], b"", &[0xA5; 4096]] {
        assert!(refusal(bytes).contains("no complete safetensors file"), "{}", refusal(bytes));
    }
}

#[test]
fn shards_together_are_one_model_and_nothing_may_be_there_twice() {
    let vit = spec("test_vit.r160_in1k");
    let half = |first: bool| {
        written(&file(&vit, |tensors| {
            let middle = tensors.len() / 2;
            if first { tensors.truncate(middle) } else { drop(tensors.drain(..middle)) }
        }))
    };
    let (first, second) = (half(true), half(false));
    let shards = [first.path.clone(), second.path.clone()];
    assert!(verify(&vit, &shards).is_ok());
    assert!(verify(&vit, &shards[..1]).is_err());
    let twice = verify(&vit, &[first.path.clone(), first.path.clone()]).unwrap_err().to_string();
    assert!(twice.contains("is there twice"), "{twice}");
}

#[test]
fn a_tensor_that_is_passed_over_has_a_bound() {
    let swin = spec("small/swin");
    let with = |bytes: usize| {
        let extra = ("layers.0.blocks.1.attn_mask".to_owned(), ("U8", vec![bytes as i64], vec![0; bytes]));
        verify(&swin, &[written(&file(&swin, |tensors| tensors.push(extra))).path])
    };
    assert!(with(15 << 20).is_ok());
    let error = with((16 << 20) + 1).unwrap_err().to_string();
    assert!(error.contains("attn_mask has 16777217 bytes"), "{error}");
}

#[test]
fn a_file_longer_than_the_model_is_not_read() {
    let weights = written(b"");
    std::fs::File::create(&weights.path).unwrap().set_len(10 << 40).unwrap();
    let error = verify(&spec("small/swin"), std::slice::from_ref(&weights.path)).unwrap_err().to_string();
    assert!(error.contains("at most") && error.contains("are accepted"), "{error}");
}
