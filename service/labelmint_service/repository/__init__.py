"""The model repository: a folder of models and versions, loaded, unloaded and swapped while streams run.

DIR/NAME/VERSION/manifest.json ...   bundles; whoever copies one in had better do it as `.NAME`, and then rename it
DIR/NAME/model.json                  aliases and the limit of memory; may be missing

model_file  reads and writes model.json
folders     what lies in the folder, and whether it has changed
lifecycle   one version: from its folder to ready, and from there to closed; whatever fails leaves the rest as it is
failures    why it failed, in words for every caller
operations  what an operator asks for: load, unload, move an alias
polling     does the same by itself, for what is new in the folder and what has gone
keeping     all of it as the settings want it, with its start and its end
"""
