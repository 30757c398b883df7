use super::super::Simd;
use super::*;

dispatch! {
    fn check(bytes: &[u8; VECTOR_BYTES], floats: &[f32; LANES]) = check_body
}

/// Compares every operation with [`Portable`]'s on numbers for which no rounding differs.
#[inline(always)]
fn check_body<S: Lanes>(simd: S, bytes: &[u8; VECTOR_BYTES], floats: &[f32; LANES]) {
    let (half, quarter) = (bytes.first_chunk().unwrap(), bytes.first_chunk().unwrap());
    assert_eq!(simd.to_array(simd.load_f32_bytes(bytes)), Portable.load_f32_bytes(bytes));
    assert_eq!(simd.to_array(simd.load_bf16(half)), Portable.load_bf16(half));
    assert_eq!(simd.to_array(simd.load_f16(half)), Portable.load_f16(half));
    assert_eq!(simd.to_array(simd.load_i8(quarter)), Portable.load_i8(quarter));
    assert_eq!(simd.to_array(simd.load_u8(quarter)), Portable.load_u8(quarter));

    let loaded = simd.load(floats);
    assert_eq!(simd.to_array(loaded), *floats);
    assert_eq!(simd.to_array(simd.mul(loaded, simd.splat(2.0))), floats.map(|x| 2.0 * x));
    assert_eq!(simd.to_array(simd.mul_add(loaded, loaded, simd.splat(1.0))), floats.map(|x| x * x + 1.0));
    let mut sums = [0.0; 7];
    simd.sums(&std::array::from_fn::<_, 7, _>(|i| simd.mul(loaded, simd.splat(i as f32))), &mut sums);
    assert_eq!(sums, std::array::from_fn(|i| i as f32 * floats.iter().sum::<f32>()));
    assert_eq!(simd.to_array(simd.splat_f16([bytes[0], bytes[1]])), Portable.splat_f16([bytes[0], bytes[1]]));

    let weights = simd.load_bytes(bytes);
    assert_eq!(simd.to_bytes(weights), *bytes);
    let numbers = std::array::from_fn(|lane| 3 - lane as i32);
    assert_eq!(simd.to_array(simd.to_floats(simd.load_i32(&numbers))), Portable.to_floats(numbers));
    let ints = |sums| simd.to_array(simd.to_floats(sums));
    let x = [3, 250, 127, 129];
    let table = std::array::from_fn(|i| 60 - 4 * i as u8);
    let pairs = [
        (weights, *bytes),
        (simd.shift_and_mask(weights, 0, 15), Portable.shift_and_mask(*bytes, 0, 15)),
        (simd.shift_and_mask(weights, -4, 15), Portable.shift_and_mask(*bytes, -4, 15)),
        (simd.look_up(&table, simd.shift_and_mask(weights, 0, 15)), bytes.map(|byte| table[usize::from(byte & 15)])),
        (simd.shift_and_mask(weights, -3, 31), Portable.shift_and_mask(*bytes, -3, 31)),
        (simd.shift_and_mask(weights, 2, 0x30), Portable.shift_and_mask(*bytes, 2, 0x30)),
        (simd.or(weights, simd.zero_bytes()), *bytes),
    ];
    for (weights, expected) in pairs {
        let expected = Portable.dot_small(Portable.dot_small([5; LANES], expected, x), expected, x);
        let five = simd.splat_i32(5);
        let twice = simd.dot_small(simd.dot_small(simd.begin_small(five), weights, x), weights, x);
        assert_eq!(ints(simd.end_small(five, twice)), Portable.to_floats(expected));
    }
    let biased = bytes.map(|byte| byte.wrapping_mul(5) | 1);
    let sum: i32 = x.iter().map(|x| i32::from(x.cast_signed())).sum();
    let products = simd.dot_biased(simd.splat_i32(-S::BIAS * sum), simd.load_bytes(&biased), x);
    assert_eq!(ints(products), Portable.to_floats(Portable.dot_biased([0; LANES], biased, x)));
}

#[test]
fn operations_match_the_portable_ones_on_every_instruction_set() {
    for simd in Simd::all() {
        for seed in 0..64 {
            let bytes = std::array::from_fn(|i| (i * 37 + seed * 11) as u8 & 63);
            let floats = std::array::from_fn(|i| (i * seed % 29) as f32 - 8.0);
            check(simd, &bytes, &floats);
        }
    }
}
