//! Products on a GPU or a stand-in, and the kernels of training in NVIDIA's compiler.

use super::*;
use crate::cuda::{compiler, libraries};

#[test]
fn products_of_every_order_are_sums_of_products() {
    let Ok(gpu) = Arithmetic::stand_in(Precision::F32).map_err(|reason| println!("skipped: {reason}")) else { return };
    let ([mut a, mut b], mut out) = ([(); 2].map(|()| Array::default()), Array::default());
    let values = |len: usize, shift: f32| (0..len).map(|i| (i as f32 * 0.7 + shift).sin()).collect::<Vec<_>>();
    let (left, right) = (values(40, 0.0), values(40, 1.0));
    let [a, b] = [(&mut a, &left), (&mut b, &right)].map(|(array, values)| {
        let view = gpu.sized(array, values.len()).unwrap();
        gpu.write_operands(view, values).unwrap();
        view
    });
    for (flips, count) in [([false, false], 1), ([true, false], 2), ([false, true], 2), ([true, true], 1)] {
        // (2, 3) times (3, 4), in rows of 5 values.
        let shapes = [[2, 3], [3, 4]];
        let operand = |which: usize, view| {
            let [rows, columns] = shapes[which];
            let matrix = |rows, columns| Matrix::new(view, rows, columns, 5).every(20);
            if flips[which] { matrix(columns, rows).transposed() } else { matrix(rows, columns) }
        };
        let at = |which: usize, product: usize, row: usize, column: usize| {
            let place = if flips[which] { column * 5 + row } else { row * 5 + column };
            [&left, &right][which][product * 20 + place]
        };
        let to = gpu.upload(&mut out, &[1.0f32; 24]).unwrap();
        gpu.multiply(2.0, operand(0, a), operand(1, b), Output::add(to, 6).every(12, count)).unwrap();
        let mut found = [0.0f32; 24];
        to.read(&mut found).unwrap();
        for (index, found) in found.into_iter().enumerate() {
            let (product, row, column) = (index / 12, index / 6 % 2, index % 6);
            let sum = || (0..3).map(|k| at(0, product, row, k) * at(1, product, k, column)).sum::<f32>();
            let expected = if product < count && column < 4 { 1.0 + 2.0 * sum() } else { 1.0 };
            assert!((found - expected).abs() < 1e-5, "{flips:?}: {index}: {found} for {expected}");
        }
    }
}

#[test]
fn shapes_outside_of_their_lists_are_refused() {
    let Ok(gpu) = Arithmetic::stand_in(Precision::Bf16).map_err(|reason| println!("skipped: {reason}")) else { return };
    let (mut operands, mut out) = (Array::default(), Array::default());
    let (operands, out) = (gpu.sized(&mut operands, 12).unwrap(), gpu.sized(&mut out, 4).unwrap());
    let square = |size| Matrix::new(operands, size, size, size);
    assert!(gpu.multiply(1.0, square(2), square(2), Output::set(out, 2)).is_ok());
    assert!(gpu.multiply(1.0, square(2), square(3), Output::set(out, 3)).is_err());
    assert!(gpu.multiply(1.0, square(3), square(3), Output::set(out, 3)).is_err());
    assert!(gpu.multiply(1.0, square(4), square(4), Output::set(out, 4)).is_err());
    assert!(out.read(&mut [0.0; 5]).is_err() && gpu.write(out, &[0.0; 5]).is_err());
}

#[test]
fn kernels_compile_for_every_architecture() {
    if let Err(reason) = libraries::load_compiler() {
        return println!("skipped: {reason}");
    }
    for (compute, arch) in
        [Format::F32, Format::BF16].into_iter().flat_map(|compute| [80, 89, 90, 100].map(|arch| (compute, arch)))
    {
        let code = compiler::compile(&program::source(arch, compute), arch).unwrap();
        println!("{compute} for sm_{arch}: {} KiB", code.len() >> 10);
    }
}
