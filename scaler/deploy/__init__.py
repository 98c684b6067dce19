"""From a trained file to proof on the device: engines, verification, bundles. Torch is not needed here."""
