"""The program in a tuning pod: from a dataset to an adapter image that inference can load.

It is started as ``kaito tune`` (kaito/commands/tune.py); ``run.py`` is its course, with one module a stage beside
it. This page is the contract with whoever starts it, above all with the Job that the operator makes.

Command line of a pod::

    kaito tune -f /mnt/config/training_config.yaml --method lora|qlora
        --model /workspace/weights --base-name <the preset's hub id>
        --data-url URL ... | --data-image IMAGE | --data-dir /mnt/data
        --output-dir /mnt/results [--checkpoint-dir DIR] [--work-dir DIR]
        [--output-image REGISTRY/REPOSITORY:TAG --push-secret FILE] [--pull-secret FILE]
        [--dataset-sha256 HEX ...] [--max-dataset-bytes N] [--allow-private-dataset-urls]
        [--metrics-port 5000] [--insecure-registry HOST] [--output-base-image IMAGE]

Files that it reads: training_config.yaml (without -f the method's template, api/training_templates); FILE is a
mounted ``.dockerconfigjson``, or the folder of the mounted secret. Environment: DEFAULT_TARGET_MODULES (names,
comma separated: layers to adapt where LoraConfig names none), HF_HOME, HF_TOKEN, HF_HUB_OFFLINE (the hub's own),
OMP_NUM_THREADS.

Files that it writes below --output-dir: ``adapter_config.json`` and ``adapter_model.safetensors`` (each appears
whole), ``result.json`` (what run they are of; with it a later start only pushes), ``fine_tuning_completed.txt``
(empty: upstream's marker that the two are complete; written before the push); ``checkpoints/`` (--checkpoint-dir:
a ``checkpoint-N`` counts once it has ``complete.json``); ``work/`` (--work-dir: downloads, tokens, the layer to
push; may be an emptyDir). A start with the same arguments goes on with whatever of these is there, so checkpoints
outlive a pod when their folder does. The root file system may be read-only; HOME or HF_HOME must be writable only
for hub names.

Progress: GET :5000/v1/progress is an ``api.progress.TuneProgress`` in JSON, /metrics Prometheus' text
(``kaito_tuning_*``; with ``Accept: application/json`` the GPU and CPU report of v0.3), /health 200, or 500 once it
has failed. The last progress is written to /dev/termination-log where that exists (at most 4096 bytes), whatever
the end.

Exit codes:

    0    done: stage Succeeded, image and digest are set where one was pushed
    1    failed; repeating it does not help until somebody acts (dataset, model, memory, disk, permission, a bug)
    2    arguments or training_config.yaml are wrong; nothing was trained or pushed
    75   failed for a reason that may pass (network, registry): run it again, it goes on
    76   stopped by SIGTERM or SIGINT: run it again. In training a checkpoint is saved after the step at hand, so
    the grace period must be longer than a step and the writing of a checkpoint

A pod that was killed (137: out of memory or evicted) left no message; running it again goes on from the last
checkpoint, written at save_strategy's times and at least every --checkpoint-seconds (300). The Job may thus repeat
on 75, 76 and 137, and must not on 1 and 2.

The pushed image has one layer on nothing, with the two files under /data: enough for this project's server and for
upstream since 0.5, which unpack layers. Upstream 0.3 runs ``cp`` in the image itself (an init container); for that
give --output-base-image busybox. Blobs go first, then the manifest by its digest, the tag last; pushing the same
adapter twice gives the same digest. May it be pushed at all is asked before anything is downloaded.
"""
