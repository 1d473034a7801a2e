"""What PyTorch needs for the cases of linear_algebra.ts on the same GPU: medians of CUDA event times.

    python3 tests/bench/torch_peer.py [--json FILE]

Needs PyTorch with CUDA; `deno task bench --torch FILE` compares with what it wrote.
"""

import json
import sys

import torch


def median_ms(run, repeats=9):
    for _ in range(3):
        run()
    torch.cuda.synchronize()
    times = []
    for _ in range(repeats):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end))
    return sorted(times)[repeats // 2]


torch.backends.cuda.matmul.allow_tf32 = False
figures = {}
for n in (1024, 4096, 8192):
    x, y = (torch.randn(n, n, device="cuda") for _ in range(2))
    figures[f"gemm f32 {n}³"] = median_ms(lambda: x @ y)
    for name, dtype in (("f16", torch.float16), ("bf16", torch.bfloat16)):
        low, lower = x.to(dtype), y.to(dtype)
        figures[f"gemm {name} inputs {n}³"] = median_ms(lambda: low @ lower)
for columns in (4096, 11008):
    x = torch.randn(25600, columns, device="cuda")
    figures[f"gram [25600, {columns}] of columns"] = median_ms(lambda: x.T @ x, 5)
    del x
for dtype, name in ((torch.float32, "f32"), (torch.float64, "f64")):
    x = torch.randn(8192, 8192, device="cuda", dtype=dtype)
    matrix = x.T @ x / 8192 + torch.eye(8192, device="cuda", dtype=dtype)
    rhs = torch.randn(8192, 32, device="cuda", dtype=dtype)
    figures[f"cholesky + solve {name}, 8192, 32 right-hand sides"] = median_ms(
        lambda: torch.cholesky_solve(rhs, torch.linalg.cholesky(matrix)), 5
    )
print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
for name, milliseconds in figures.items():
    print(f"{name:<52} {milliseconds:10.3f} ms")
if len(sys.argv) > 2 and sys.argv[1] == "--json":
    with open(sys.argv[2], "w") as file:
        json.dump(
            {
                "device": torch.cuda.get_device_name(),
                "version": f"PyTorch {torch.__version__} (CUDA {torch.version.cuda})",
                "milliseconds": figures,
            },
            file,
            indent=2,
        )
