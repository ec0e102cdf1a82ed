"""The steps of the pipeline, one module each, holding one function of the same name.

`from visavis.steps.curate_clips import curate_clips` gives `curate_clips(recipe, context, inputs, output)`:
`recipe` and `context` are JSON, `inputs` names manifest files, `output` is the manifest file to write.
Importing a step is cheap: its libraries are imported when it has work to do.

| step | inputs |
| --- | --- |
| `curate_clips` | |
| `describe_clips` | pairs |
| `segment_faces` | pairs |
| `build_conversations` | pairs, captions, faces |
| `encode_images` | conversations |
| `tune_detokenizer` | conversations, tokens |
| `tune_mllm` (with `stage=`) | conversations, tokens, mllm (not in the first stage) |
| `tune_rounds` | conversations, tokens, mllm |
| `adapt_detokenizer` | conversations, tokens, mllm, detokenizer |
| `evaluate_model` | conversations, tokens, reconstruct, inpaint, pair, mllm, tuned_detokenizer, detokenizer |
| `evaluate_champion` | tokens, scorecard |
| `gate_model` | scorecard, champion |
| `register_model` | scorecard, decision |
| `promote_model` | version |
| `monitor_champion` | tokens |
| `evaluate_version` (with `version=`) | tokens |
| `promote_version` (with `version=`) | decision |
| `score_arm` | tokens, detokenizer, mllm (not if only the detokenizer is compared) |
| `close_run` | |
"""
