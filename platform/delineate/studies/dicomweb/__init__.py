"""DICOMweb (PS3.18) under ``/dicomweb/<project>/``: stow in; qido and wado out."""
