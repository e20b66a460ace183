from mlkd.train import train
import time
def test_x(toy, tmp_path, small_threads):
    t=time.time()
    folder = train(toy.config(tmp_path), tmp_path/"run")
    print(time.time()-t)
    import os
    os.system(f"find {folder} -type f; cat {folder}/metrics.jsonl; cat {folder}/results.md {folder}/train.log")
    t=time.time()
    folder = train(toy.config(tmp_path, "seed=2"), tmp_path/"run2")
    print(time.time()-t)
